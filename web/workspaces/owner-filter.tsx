import { listUsers } from '@cde/api/identity.ts';
import { useQuery } from '@tanstack/react-query';
import { callAll } from '../client.ts';
import { seesUsers, useMe } from '../me.ts';

/** Filters a list by owner. Suggests usernames if the role can list users. */
export function OwnerFilter({
  label,
  value,
  onChange,
}: {
  label: string;
  /** A username, `me` or `all`. */
  value: string;
  onChange: (owner: string) => void;
}) {
  const me = useMe();
  const users = useQuery({
    queryKey: ['usernames'],
    queryFn: async ({ signal }) => (await callAll(listUsers, { signal })).map((user) => user.username),
    enabled: seesUsers(me.role),
    staleTime: 60_000,
  });
  const others = (users.data ?? []).filter((name) => name !== me.username).sort();
  if (value !== 'me' && value !== 'all' && !others.includes(value)) others.unshift(value);
  return (
    <select
      className="owner-filter"
      aria-label={label}
      value={value}
      onChange={(event) => onChange(event.target.value)}
    >
      <option value="me">Mine</option>
      <option value="all">Everyone's</option>
      {others.map((name) => (
        <option key={name} value={name}>
          {name}
        </option>
      ))}
    </select>
  );
}
