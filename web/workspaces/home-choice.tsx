import { listRetainedHomes, type RetainedHome } from '@cde/api/workspaces.ts';
import { queryOptions, useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { callAll } from '../client.ts';
import { useMe } from '../me.ts';
import { Field } from '../ui/field.tsx';
import { day } from '../ui/format.ts';
import { Ago } from '../ui/time.tsx';

const keptHomes = (owner: 'me' | undefined) =>
  queryOptions({
    queryKey: ['homes', 'restorable', owner],
    queryFn: ({ signal }) => callAll(listRetainedHomes, { query: { ...(owner && { owner }) }, signal }),
  });

/**
 * The retained homes that the user can restore: their own and, for a server owner, the chosen one. `waits`: the chosen
 * one may still be loading.
 */
export function useRestorable(chosen: string | undefined) {
  const me = useMe();
  const mine = useQuery(keptHomes('me'));
  const isMine = mine.data?.some(({ id }) => id === chosen) ?? false;
  const askOthers = chosen !== undefined && me.role === 'owner' && mine.data !== undefined && !isMine;
  const others = useQuery({ ...keptHomes(undefined), enabled: askOthers });
  const other = askOthers ? others.data?.find(({ id }) => id === chosen) : undefined;
  return {
    homes: [...(mine.data ?? []), ...(other ? [other] : [])],
    waits: chosen !== undefined && (mine.isPending || (askOthers && others.isPending)),
    error: mine.error ?? (askOthers ? others.error : null),
    retry: () => void (mine.error ? mine : others).refetch(),
  };
}

/** Chooses the home of a new workspace: an empty or a retained one. Hidden if no retained home fits. */
export function HomeChoice({
  homes,
  chosen,
  provider,
  error,
  onChange,
}: {
  homes: RetainedHome[];
  /** The home from the URL, if it still exists. */
  chosen: RetainedHome | undefined;
  /** The template's provider, which must be the one that retained the home. */
  provider: string;
  error: string | undefined;
  onChange: (home: string | undefined) => void;
}) {
  const fitting = homes.filter((home) => home.provider === provider);
  if (fitting.length === 0) return null;
  const value = fitting.some((home) => home.id === chosen?.id) ? chosen : undefined;
  return (
    <Field
      label="Home"
      error={error}
      hint={
        value ? (
          <>
            The files of {value.owner}/{value.workspace}, deleted <Ago at={value.deletedAt} />.
          </>
        ) : (
          <>
            An empty one, or one of your <Link to="/homes">retained homes</Link>.
          </>
        )
      }
    >
      {(aria) => (
        <select
          {...aria}
          name="home"
          value={value?.id ?? ''}
          onChange={(event) => onChange(event.target.value || undefined)}
        >
          <option value="">A new, empty home</option>
          {fitting.map((home) => (
            <option key={home.id} value={home.id}>
              {`The home of ${home.workspace}${home.size ? ` (${home.size})` : ''}, deleted ${day(home.deletedAt)}`}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}
