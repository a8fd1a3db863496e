import { type Role, roles } from '@cde/api/endpoint.ts';
import { createUser, deleteUser, listUsers, setPassword, type User, updateUser } from '@cde/api/identity.ts';
import { Username } from '@cde/api/names.ts';
import { keepPreviousData, useInfiniteQuery, useMutation, useQueryClient } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { CallError, call, newIdempotencyKey } from '../client.ts';
import { managesUsers, useMe } from '../me.ts';
import { pagedQuery, rowsOf } from '../paging.ts';
import { useTitle } from '../shell.tsx';
import { ConfirmDialog } from '../ui/confirm.tsx';
import { Dialog } from '../ui/dialog.tsx';
import { Field } from '../ui/field.tsx';
import { Icon } from '../ui/icons.tsx';
import { List } from '../ui/list.tsx';
import { Menu } from '../ui/menu.tsx';
import { Problem } from '../ui/problem.tsx';
import { Ago } from '../ui/time.tsx';
import { sayDone, sayFailed } from '../ui/toast.tsx';

export function UsersPage() {
  useTitle('Users');
  const me = useMe();
  const manages = managesUsers(me.role);
  const client = useQueryClient();
  const [search, setSearch] = useState('');
  const [dialog, setDialog] = useState<
    { kind: 'create' } | { kind: 'password' | 'delete'; user: User } | null
  >(null);
  const list = useInfiniteQuery({
    ...pagedQuery(['users', search], (page, signal) =>
      call(listUsers, { query: { ...page, ...(search && { search }) }, signal }),
    ),
    placeholderData: keepPreviousData,
  });
  const refresh = () => client.invalidateQueries({ queryKey: ['users'] });
  const update = useMutation({
    mutationFn: ({ user, ...body }: { user: User; role?: Role; status?: User['status'] }) =>
      call(updateUser, { params: { user: user.id }, body }),
    onSuccess: (user) => {
      sayDone(`Changed ${user.username}.`);
      return refresh();
    },
    onError: (error, { user }) => {
      sayFailed(`Could not change ${user.username}.`, error);
      return refresh();
    },
  });
  const close = () => setDialog(null);
  return (
    <main id="main">
      <div className="page-head">
        <h1>Users</h1>
        <search className="search">
          <Icon name="search" />
          <input
            type="text"
            aria-label="Search users"
            placeholder="Search"
            value={search}
            spellCheck={false}
            onChange={(event) => setSearch(event.target.value)}
          />
        </search>
        {manages && (
          <div className="end">
            <button type="button" className="button primary" onClick={() => setDialog({ kind: 'create' })}>
              <Icon name="plus" /> New user
            </button>
          </div>
        )}
      </div>
      <List
        query={list}
        rows={rowsOf(list.data)}
        keyOf={(user) => user.id}
        empty={<strong>No users match</strong>}
        columns={[
          {
            title: 'User',
            is: 'name',
            cell: (user) => (
              <>
                <strong>{user.username}</strong>
                {user.name && user.name !== user.username && <span className="hint"> {user.name}</span>}
              </>
            ),
          },
          { title: 'Email', cell: (user) => user.email },
          {
            title: 'Role',
            cell: (user) =>
              manages && user.id !== me.id ? (
                <select
                  aria-label={`Role of ${user.username}`}
                  className="build-select"
                  value={user.role}
                  disabled={update.isPending}
                  onChange={(event) => update.mutate({ user, role: event.target.value as Role })}
                >
                  {roles.map((role) => (
                    <option key={role}>{role}</option>
                  ))}
                </select>
              ) : (
                user.role
              ),
          },
          {
            title: 'Status',
            cell: (user) => (
              <span className={`status ${user.status === 'active' ? 'good' : 'bad'}`}>{user.status}</span>
            ),
          },
          {
            title: 'Last seen',
            className: 'muted nowrap',
            cell: (user) => (user.lastSeenAt ? <Ago at={user.lastSeenAt} /> : 'never'),
          },
          {
            title: 'Actions',
            is: 'actions',
            cell: (user) =>
              manages &&
              user.id !== me.id && (
                <Menu
                  label={`Actions for ${user.username}`}
                  items={[
                    { label: 'Set password…', run: () => setDialog({ kind: 'password', user }) },
                    user.status === 'active'
                      ? { label: 'Suspend', run: () => update.mutate({ user, status: 'suspended' }) }
                      : { label: 'Activate', run: () => update.mutate({ user, status: 'active' }) },
                    { label: 'Delete…', danger: true, run: () => setDialog({ kind: 'delete', user }) },
                  ]}
                >
                  <Icon name="more" />
                </Menu>
              ),
          },
        ]}
      />
      {dialog?.kind === 'create' && <CreateDialog onClose={close} onDone={refresh} />}
      {dialog?.kind === 'password' && <PasswordDialog user={dialog.user} onClose={close} />}
      {dialog?.kind === 'delete' && <DeleteDialog user={dialog.user} onClose={close} onDone={refresh} />}
    </main>
  );
}

function CreateDialog({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [faults, setFaults] = useState<Record<string, string>>({});
  const create = useMutation({
    mutationFn: (body: {
      username: string;
      name: string;
      email: string | null;
      role: Role;
      password?: string;
    }) => call(createUser, { body, idempotencyKey: newIdempotencyKey() }),
    onSuccess: (user) => {
      sayDone(`Created ${user.username}.`);
      onDone();
      onClose();
    },
    onError: (error) => {
      if (!(error instanceof CallError)) return;
      const issues = (error.body.issues ?? []).map(({ path, message }) => [path, message]);
      if (error.code === 'username-taken') issues.push(['username', error.body.message]);
      if (error.code === 'email-taken') issues.push(['email', error.body.message]);
      setFaults(Object.fromEntries(issues));
    },
  });
  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const text = (name: string) => String(data.get(name)).trim();
    const username = Username.safeParse(text('username'));
    if (!username.success) return setFaults({ username: username.error.issues[0]?.message ?? '' });
    setFaults({});
    const password = String(data.get('password'));
    create.mutate({
      username: username.data,
      name: text('name'),
      email: text('email') || null,
      role: text('role') as Role,
      ...(password && { password }),
    });
  }
  return (
    <Dialog title="New user" onClose={onClose}>
      <form onSubmit={submit} noValidate>
        <Field label="Username" error={faults.username}>
          {(aria) => (
            <input {...aria} name="username" autoComplete="off" autoCapitalize="none" spellCheck={false} />
          )}
        </Field>
        <Field label="Name" optional error={faults.name}>
          {(aria) => <input {...aria} name="name" autoComplete="off" />}
        </Field>
        <Field label="Email" optional error={faults.email} hint="Identifies the user at single sign-on.">
          {(aria) => <input {...aria} name="email" type="email" autoComplete="off" />}
        </Field>
        <Field label="Role">
          {(aria) => (
            <select {...aria} name="role" defaultValue="member">
              {roles.map((role) => (
                <option key={role}>{role}</option>
              ))}
            </select>
          )}
        </Field>
        <Field
          label="Password"
          optional
          error={faults.password}
          hint="At least 10 characters. Without a password, the user signs in with single sign-on."
        >
          {(aria) => <input {...aria} name="password" type="password" autoComplete="new-password" />}
        </Field>
        {Object.keys(faults).length === 0 && <Problem error={create.error} />}
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

function PasswordDialog({ user, onClose }: { user: User; onClose: () => void }) {
  const set = useMutation({
    mutationFn: (password: string) => call(setPassword, { params: { user: user.id }, body: { password } }),
    onSuccess: () => {
      sayDone(`Set the password of ${user.username}.`);
      onClose();
    },
  });
  return (
    <Dialog title={`Password of ${user.username}`} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          set.mutate(String(new FormData(event.currentTarget).get('password')));
        }}
      >
        <Field label="New password" hint="At least 10 characters.">
          {(aria) => (
            <input
              {...aria}
              name="password"
              type="password"
              autoComplete="new-password"
              minLength={10}
              maxLength={200}
              required
            />
          )}
        </Field>
        <Problem error={set.error} />
        <div className="form-foot">
          <button type="submit" className="button primary" disabled={set.isPending}>
            Set password
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function DeleteDialog({ user, onClose, onDone }: { user: User; onClose: () => void; onDone: () => void }) {
  const remove = async () => {
    await call(deleteUser, { params: { user: user.id } });
    sayDone(`Deleted ${user.username}.`);
    onDone();
  };
  return (
    <ConfirmDialog
      title={`Delete ${user.username}`}
      keep="Cancel"
      confirm="Delete"
      act={remove}
      onClose={onClose}
    >
      This revokes the user's tokens and sessions. A user who has workspaces cannot be deleted.
    </ConfirmDialog>
  );
}
