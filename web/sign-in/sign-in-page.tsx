import { getSignInMethods, type SignedIn, signIn, signInOnce } from '@cde/api/identity.ts';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useRouter, useSearch } from '@tanstack/react-router';
import { type FormEvent, useEffect, useRef, useState } from 'react';
import { call } from '../client.ts';
import { meQuery } from '../me.ts';
import { devices, keepDevice, keepSessionKey } from '../session-key.ts';
import { useTitle } from '../shell.tsx';
import { Field } from '../ui/field.tsx';
import { Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { codeOf, oidcQueryOf } from './next.ts';
import { comeFromProvider, goToProvider } from './oidc.ts';

const fine = { signedOutIsFine: true };

export function SignInPage() {
  useTitle('Sign in');
  const { next } = useSearch({ from: '/sign-in' });
  const router = useRouter();
  const client = useQueryClient();
  const methods = useQuery({
    queryKey: ['sign-in-methods'],
    queryFn: ({ signal }) => call(getSignInMethods, { signal }),
    meta: fine,
  });
  // Removed from the address first: it must not stay in the history or be sent twice.
  const [code] = useState(() => codeOf(location.hash));
  const [oidcQuery] = useState(() => oidcQueryOf(location.hash));
  const used = useRef(false);

  async function enter({ sessionKey, device, ...user }: SignedIn, to = next) {
    keepSessionKey(sessionKey);
    keepDevice(device);
    client.setQueryData(meQuery.queryKey, user);
    // Ports of workspaces are the server's, not pages of the dashboard.
    if (to?.startsWith('/@')) return location.replace(to);
    await router.navigate({ href: to ?? '/workspaces', replace: true });
  }
  const once = useMutation({
    mutationFn: (body: { code: string }) => call(signInOnce, { body }),
    onSuccess: (signedIn) => enter(signedIn),
    meta: fine,
  });
  const byPassword = useMutation({
    mutationFn: (body: { username: string; password: string }) =>
      call(signIn, { body: { ...body, devices: devices() } }),
    onSuccess: (signedIn) => enter(signedIn),
    meta: fine,
  });
  const toProvider = useMutation({ mutationFn: () => goToProvider({ returnTo: next }), meta: fine });
  const fromProvider = useMutation({
    mutationFn: (query: string) => comeFromProvider(query),
    onSuccess: ({ returnTo, ...signedIn }) => enter(signedIn, returnTo),
    meta: fine,
  });
  useEffect(() => {
    if ((code === null && oidcQuery === null) || used.current) return;
    used.current = true;
    history.replaceState(history.state, '', location.pathname + location.search);
    if (code !== null) once.mutate({ code });
    else if (oidcQuery !== null) fromProvider.mutate(oidcQuery);
  }, [code, oidcQuery, once.mutate, fromProvider.mutate]);

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    byPassword.mutate({
      username: String(data.get('username')).trim(),
      password: String(data.get('password')),
    });
  }

  const entry = code !== null ? once : oidcQuery !== null ? fromProvider : null;
  const entering = entry !== null && !entry.isError;
  return (
    <div className="gate">
      <main className="panel gate-card">
        <div className="brand">
          <img src="/favicon.svg" alt="" width="26" height="26" />
          <span>cde</span>
        </div>
        {entering ? (
          <p className="row" role="status">
            <Spinner /> Signing you in…
          </p>
        ) : (
          <>
            <h1>Sign in</h1>
            <Problem error={once.error ?? fromProvider.error ?? toProvider.error} />
            <Problem error={methods.error} retry={() => methods.refetch()} />
            {methods.data?.needsOwner && (
              <p className="notice">
                No account exists yet. Start the server with npm start and open the link that it prints.
              </p>
            )}
            {methods.data?.oidc && (
              <button
                type="button"
                className="button primary"
                disabled={toProvider.isPending || toProvider.isSuccess}
                onClick={() => toProvider.mutate()}
              >
                Continue with {methods.data.oidc.name}
              </button>
            )}
            {methods.data?.oidc && methods.data.password && <p className="or">or</p>}
            {methods.data?.password && (
              <form onSubmit={submit}>
                <Field label="Username or email">
                  {(aria) => (
                    <input
                      {...aria}
                      name="username"
                      autoComplete="username"
                      autoCapitalize="none"
                      spellCheck={false}
                      required
                    />
                  )}
                </Field>
                <Field label="Password">
                  {(aria) => (
                    <input
                      {...aria}
                      name="password"
                      type="password"
                      autoComplete="current-password"
                      required
                    />
                  )}
                </Field>
                <Problem error={byPassword.error} />
                <button
                  type="submit"
                  className={`button ${methods.data.oidc ? '' : 'primary'}`}
                  disabled={byPassword.isPending}
                >
                  {byPassword.isPending ? 'Signing in…' : 'Sign in'}
                </button>
              </form>
            )}
          </>
        )}
      </main>
    </div>
  );
}
