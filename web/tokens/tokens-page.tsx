import { createToken, listTokens, revokeToken, type Scope, type Token } from '@cde/api/identity.ts';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { call, callAll } from '../client.ts';
import { useTitle } from '../shell.tsx';
import { ConfirmDialog } from '../ui/confirm.tsx';
import { CopyLine } from '../ui/copy.tsx';
import { Dialog } from '../ui/dialog.tsx';
import { Field } from '../ui/field.tsx';
import { moment } from '../ui/format.ts';
import { Icon } from '../ui/icons.tsx';
import { List } from '../ui/list.tsx';
import { Problem } from '../ui/problem.tsx';
import { Ago, useNow } from '../ui/time.tsx';
import { sayDone } from '../ui/toast.tsx';

const scopeWords: Record<Scope, [title: string, hint: string]> = {
  all: ['Everything', 'Everything that you can do.'],
  read: ['Read only', 'Read workspaces, templates and users.'],
  connect: ['Connect only', 'Connect to your workspaces.'],
};

export function TokensPage() {
  useTitle('Tokens');
  const tokens = useQuery({ queryKey: ['tokens'], queryFn: ({ signal }) => callAll(listTokens, { signal }) });
  const [creating, setCreating] = useState(false);
  const [revoking, setRevoking] = useState<Token | null>(null);
  const now = useNow(60_000);
  return (
    <main id="main">
      <div className="page-head">
        <h1>Tokens</h1>
        <div className="end">
          <button type="button" className="button primary" onClick={() => setCreating(true)}>
            <Icon name="plus" /> New token
          </button>
        </div>
        <p>
          For the cde command and for programs that use the <a href="/api/docs">API</a>. Each acts as you,
          within its scope, until it expires.
        </p>
      </div>
      <List
        query={tokens}
        rows={tokens.data ?? []}
        keyOf={(token) => token.id}
        empty={
          <>
            <strong>No tokens</strong>
            <p>
              Create one for a program that uses the API. <code>cde login</code> creates its own.
            </p>
          </>
        }
        columns={[
          { title: 'Name', is: 'name', cell: (token) => token.name },
          {
            title: 'Scope',
            cell: (token) => token.scopes.map((scope) => scopeWords[scope][0]).join(', '),
          },
          { title: 'Created', className: 'muted nowrap', cell: (token) => <Ago at={token.createdAt} /> },
          {
            title: 'Last used',
            className: 'muted nowrap',
            cell: (token) => (token.lastUsedAt ? <Ago at={token.lastUsedAt} /> : 'never'),
          },
          {
            title: 'Expires',
            className: 'nowrap',
            cell: (token) =>
              Date.parse(token.expiresAt) <= now ? (
                <span className="chip warn">expired</span>
              ) : (
                <Ago at={token.expiresAt} />
              ),
          },
          {
            title: 'Actions',
            is: 'actions',
            cell: (token) => (
              <button
                type="button"
                className="button small danger"
                aria-label={`Revoke ${token.name}`}
                onClick={() => setRevoking(token)}
              >
                Revoke
              </button>
            ),
          },
        ]}
      />
      {creating && <CreateDialog onClose={() => setCreating(false)} />}
      {revoking && <RevokeDialog token={revoking} onClose={() => setRevoking(null)} />}
    </main>
  );
}

function CreateDialog({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const [scope, setScope] = useState<Scope>('all');
  const create = useMutation({
    mutationFn: (body: { name: string; scopes: Scope[]; expiresInDays: number }) =>
      call(createToken, { body }),
    onSuccess: () => client.invalidateQueries({ queryKey: ['tokens'] }),
  });
  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    create.mutate({
      name: String(data.get('name')).trim(),
      scopes: [scope],
      expiresInDays: Number(data.get('days')),
    });
  }
  if (create.data)
    return (
      <Dialog title={`Token ${create.data.info.name}`} onClose={onClose}>
        <div className="body">
          <p>
            Copy it now. <strong>It is not shown again</strong>: only its hash is kept.
          </p>
          <CopyLine text={create.data.token} label="Copy the token" />
          <p className="hint">It expires on {moment(create.data.info.expiresAt)}.</p>
          <div className="form-foot">
            <button type="button" className="button primary" onClick={onClose}>
              Done
            </button>
          </div>
        </div>
      </Dialog>
    );
  return (
    <Dialog title="New token" onClose={onClose}>
      <form onSubmit={submit}>
        <Field label="Name" hint="Where the token is used, so that you know what revoking it affects.">
          {(aria) => <input {...aria} name="name" required maxLength={80} autoComplete="off" />}
        </Field>
        <fieldset className="field">
          <legend className="legend">Scope</legend>
          <div className="choices">
            {(Object.keys(scopeWords) as Scope[]).map((name) => (
              <label key={name} className="choice">
                <input type="radio" name="scope" checked={scope === name} onChange={() => setScope(name)} />
                <span>
                  {scopeWords[name][0]}
                  <span className="hint">{scopeWords[name][1]}</span>
                </span>
              </label>
            ))}
          </div>
        </fieldset>
        <Field label="Expires in">
          {(aria) => (
            <select {...aria} name="days" defaultValue="90">
              <option value="1">1 day</option>
              <option value="7">7 days</option>
              <option value="30">30 days</option>
              <option value="90">90 days</option>
              <option value="365">1 year</option>
            </select>
          )}
        </Field>
        <Problem error={create.error} />
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button primary" disabled={create.isPending}>
            Create
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function RevokeDialog({ token, onClose }: { token: Token; onClose: () => void }) {
  const client = useQueryClient();
  const revoke = async () => {
    await call(revokeToken, { params: { token: token.id } });
    await client.invalidateQueries({ queryKey: ['tokens'] });
    sayDone(`Revoked ${token.name}.`);
  };
  return (
    <ConfirmDialog
      title={`Revoke ${token.name}`}
      keep="Keep it"
      confirm="Revoke"
      act={revoke}
      onClose={onClose}
    >
      Programs that use it are signed out at their next request.
    </ConfirmDialog>
  );
}
