import { getSignInMethods, setPassword, signOut } from '@cde/api/identity.ts';
import { useMutation, useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { call } from '../client.ts';
import { useMe } from '../me.ts';
import { forgetSessionKey, keepSessionKey } from '../session-key.ts';
import { useTitle } from '../shell.tsx';
import { goToProvider } from '../sign-in/oidc.ts';
import { Field } from '../ui/field.tsx';
import { Problem } from '../ui/problem.tsx';
import { sayDone } from '../ui/toast.tsx';

export function AccountPage() {
  useTitle('Account');
  const me = useMe();
  const leave = useMutation({
    mutationFn: () => call(signOut),
    onSuccess: () => {
      forgetSessionKey();
      location.assign('/sign-in');
    },
  });
  return (
    <main id="main" className="narrow">
      <div className="page-head">
        <h1>Account</h1>
      </div>
      <div className="stack">
        <section className="panel" aria-labelledby="who">
          <header>
            <h2 id="who">{me.name || me.username}</h2>
            <span className="end">
              <button
                type="button"
                className="button small"
                disabled={leave.isPending}
                onClick={() => leave.mutate()}
              >
                Sign out
              </button>
            </span>
          </header>
          <div className="body stack">
            <Problem error={leave.error} />
            <dl className="facts">
              <dt>Username</dt>
              <dd>{me.username}</dd>
              <dt>Email</dt>
              <dd>{me.email ?? <span className="muted">none</span>}</dd>
              <dt>Role</dt>
              <dd>{me.role}</dd>
            </dl>
          </div>
        </section>
        <PasswordForm username={me.username} />
        <SingleSignOn />
      </div>
    </main>
  );
}

function PasswordForm({ username }: { username: string }) {
  const [fault, setFault] = useState<string>();
  const change = useMutation({
    mutationFn: (body: { current?: string; password: string }) =>
      call(setPassword, { params: { user: 'me' }, body }),
  });
  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = event.currentTarget;
    const data = new FormData(form);
    const text = (name: string) => String(data.get(name));
    if (text('password').length < 10) return setFault('Use at least 10 characters.');
    if (text('password') !== text('again')) return setFault('The passwords do not match.');
    setFault(undefined);
    change.mutate(
      { ...(text('current') && { current: text('current') }), password: text('password') },
      {
        onSuccess: ({ sessionKey }) => {
          if (sessionKey !== null) keepSessionKey(sessionKey);
          form.reset();
          sayDone('Your password was changed.');
        },
      },
    );
  }
  return (
    <form className="panel" onSubmit={submit} aria-labelledby="password-title">
      <header>
        <h2 id="password-title">Password</h2>
      </header>
      <div className="body stack">
        <input type="hidden" name="username" autoComplete="username" value={username} />
        <Field label="Current password" hint="Leave it empty if you have no password yet.">
          {(aria) => <input {...aria} name="current" type="password" autoComplete="current-password" />}
        </Field>
        <Field label="New password" hint="At least 10 characters." error={fault}>
          {(aria) => <input {...aria} name="password" type="password" autoComplete="new-password" required />}
        </Field>
        <Field label="New password again">
          {(aria) => <input {...aria} name="again" type="password" autoComplete="new-password" required />}
        </Field>
        <Problem error={change.error} />
        <div className="form-foot">
          <button type="submit" className="button primary" disabled={change.isPending}>
            Change password
          </button>
        </div>
      </div>
    </form>
  );
}

/** Single sign-on does not match owners by email address, so they link their account here. */
function SingleSignOn() {
  const methods = useQuery({
    queryKey: ['sign-in-methods'],
    queryFn: ({ signal }) => call(getSignInMethods, { signal }),
  });
  const link = useMutation({ mutationFn: () => goToProvider({ returnTo: '/account', link: true }) });
  const oidc = methods.data?.oidc;
  if (!oidc) return null;
  return (
    <section className="panel" aria-labelledby="sso-title">
      <header>
        <h2 id="sso-title">Single sign-on</h2>
      </header>
      <div className="body stack">
        <p>Link the account that you have at {oidc.name}, then sign in with it here.</p>
        <Problem error={link.error} />
        <div className="form-foot">
          <button
            type="button"
            className="button"
            disabled={link.isPending || link.isSuccess}
            onClick={() => link.mutate()}
          >
            Link {oidc.name}
          </button>
        </div>
      </div>
    </section>
  );
}
