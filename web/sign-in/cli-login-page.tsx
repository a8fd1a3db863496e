import { approveCliLogin, getCliLogin } from '@cde/api/identity.ts';
import { useMutation, useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { type FormEvent, useState } from 'react';
import { call } from '../client.ts';
import { useMe } from '../me.ts';
import { useTitle } from '../shell.tsx';
import { Field } from '../ui/field.tsx';
import { Problem } from '../ui/problem.tsx';
import { Ago } from '../ui/time.tsx';

/** Normalizes a code to `XXXX-XXXX`. */
function normalise(code: string): string {
  const letters = code.replace(/[^A-Za-z0-9]/g, '').toUpperCase();
  return letters.length === 8 ? `${letters.slice(0, 4)}-${letters.slice(4)}` : code.trim().toUpperCase();
}

/** Shows which machine asks to be logged in as this user, and allows it. */
export function CliLoginPage() {
  useTitle('Log in the cde command');
  const me = useMe();
  const { code } = useSearch({ from: '/signed-in/cli-login' });
  const navigate = useNavigate();
  const asking = useQuery({
    queryKey: ['cli-login', code],
    queryFn: ({ signal }) => call(getCliLogin, { params: { userCode: code! }, signal }),
    enabled: code !== undefined,
  });
  const approve = useMutation({
    mutationFn: () => call(approveCliLogin, { params: { userCode: code! } }),
  });
  const [refused, setRefused] = useState(false);

  function enter(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const typed = normalise(String(new FormData(event.currentTarget).get('code')));
    void navigate({ to: '/cli-login', search: { code: typed } });
  }

  return (
    <main id="main" className="narrow stack">
      <h1>Log in the cde command</h1>
      {approve.isSuccess ? (
        <div className="notice good" role="status">
          <p>
            <strong>Done.</strong> The command is logged in as {me.username}. You can close this page and go
            back to it.
          </p>
        </div>
      ) : refused ? (
        <div className="notice" role="status">
          <p>
            Nothing was allowed, and the request expires by itself.{' '}
            <Link to="/workspaces">Go to your workspaces</Link>
          </p>
        </div>
      ) : asking.data ? (
        <section className="panel" aria-labelledby="asks">
          <header>
            <h2 id="asks">A machine asks to act as {me.username}</h2>
          </header>
          <div className="body stack">
            <dl className="facts">
              <dt>Code</dt>
              <dd>
                <code className="user-code">{code}</code>
              </dd>
              <dt>Machine</dt>
              <dd>{asking.data.hostname}</dd>
              <dt>Address</dt>
              <dd>{asking.data.ip ?? 'not known'}</dd>
              <dt>Asked</dt>
              <dd>
                <Ago at={asking.data.createdAt} />
              </dd>
            </dl>
            <p>
              Allow it only if you have just run <code>cde login</code> there and it shows this code. It gets
              a token that may do everything you may.
            </p>
            <Problem error={approve.error} />
            <div className="form-foot">
              <button type="button" className="button" onClick={() => setRefused(true)}>
                Refuse
              </button>
              <button
                type="button"
                className="button primary"
                disabled={approve.isPending}
                onClick={() => approve.mutate()}
              >
                Allow
              </button>
            </div>
          </div>
        </section>
      ) : (
        <>
          <Problem error={asking.error} />
          {!asking.isLoading && (
            <form className="panel" onSubmit={enter}>
              <div className="body stack">
                <Field label="Code" hint="The cde command shows it after: cde login">
                  {(aria) => (
                    <input
                      {...aria}
                      name="code"
                      defaultValue={code ?? ''}
                      placeholder="XXXX-XXXX"
                      autoComplete="off"
                      spellCheck={false}
                      maxLength={20}
                      required
                    />
                  )}
                </Field>
                <div className="form-foot">
                  <button type="submit" className="button primary">
                    Continue
                  </button>
                </div>
              </div>
            </form>
          )}
        </>
      )}
    </main>
  );
}
