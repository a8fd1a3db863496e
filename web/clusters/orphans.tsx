import { cleanOrphans, type Orphan } from '@cde/api/clusters.ts';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { call } from '../client.ts';
import { managesClusters, useMe } from '../me.ts';
import { Dialog } from '../ui/dialog.tsx';
import { Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { Ago } from '../ui/time.tsx';
import { AdoptDialog } from './adopt-dialog.tsx';
import { type OrphanPlace, orphansQuery } from './queries.ts';

const kindWords: Record<Orphan['kind'], string> = {
  namespace: 'Namespace',
  workspace: 'Workspace',
  home: 'Home',
  compute: 'Compute',
  network: 'Network',
  volume: 'Volume',
};
const actionWords: Record<Orphan['action'], [chip: string, word: string]> = {
  delete: ['chip warn', 'cleaning deletes it'],
  report: ['chip', 'left as it is'],
  keep: ['chip', 'kept'],
};

const doomed = (items: Orphan[] | undefined) => items?.filter(({ action }) => action === 'delete') ?? [];
const nameOf = (place: OrphanPlace) => ('cluster' in place ? place.cluster : place.provider);

const placeWords = (place: OrphanPlace) =>
  'cluster' in place ? place.cluster : `the provider ${place.provider}`;
const keptHomes = (place: OrphanPlace) => ('cluster' in place ? 'omes in them are kept.' : 'omes are kept.');

/** “3 namespaces”, as what is deleted there is called. */
function counted(place: OrphanPlace, count: number): string {
  const noun = 'cluster' in place ? 'namespace' : 'object';
  return count === 1 ? `1 ${noun}` : `${count} ${noun}s`;
}

/**
 * Objects without a workspace, and workspaces without their namespace, with a way to clean up. `state`: of the cluster;
 * a change of it is a reason to look again.
 */
export function Orphans({ place, state }: { place: OrphanPlace; state?: string }) {
  const manages = managesClusters(useMe().role);
  const found = useQuery(orphansQuery(place, state));
  const [cleaning, setCleaning] = useState(false);
  const [adopting, setAdopting] = useState<Orphan | null>(null);
  const items = found.data?.items ?? [];
  const isUnseen = found.data?.unseen.includes(nameOf(place)) ?? false;
  const title = 'cluster' in place ? 'Orphans' : `Orphans of the provider ${place.provider}`;
  return (
    <section className="panel" aria-label={title}>
      <header>
        <h2>{title}</h2>
        <div className="end">
          <button
            type="button"
            className="button small"
            disabled={found.isFetching}
            onClick={() => found.refetch()}
          >
            {found.isFetching ? 'Looking…' : 'Look again'}
          </button>
          {manages && doomed(items).length > 0 && (
            <button type="button" className="button small danger" onClick={() => setCleaning(true)}>
              Clean…
            </button>
          )}
        </div>
      </header>
      <div className="body stack tight">
        <Problem error={found.error} />
        {found.isPending && !found.error && (
          <p className="row muted" role="status">
            <Spinner /> Looking…
          </p>
        )}
        {isUnseen && (
          <p className="muted">
            Not checked, because {'cluster' in place ? 'the cluster' : nameOf(place)} is unreachable.
          </p>
        )}
        {found.data && !isUnseen && items.length === 0 && (
          <p className="muted">
            {'cluster' in place
              ? 'No orphans. Namespaces without a workspace, and workspaces without a namespace, appear here.'
              : 'No orphans. Homes without a workspace, and what runs without one, appear here.'}
          </p>
        )}
        <OrphanList items={items} onAdopt={manages ? setAdopting : undefined} />
      </div>
      {adopting && <AdoptDialog orphan={adopting} onClose={() => setAdopting(null)} />}
      {cleaning && <CleanDialog place={place} onClose={() => setCleaning(false)} />}
    </section>
  );
}

function OrphanList({
  items,
  done = false,
  onAdopt,
}: {
  items: Orphan[];
  done?: boolean;
  onAdopt?: ((orphan: Orphan) => void) | undefined;
}) {
  return (
    <ul className="orphans">
      {items.map((orphan) => {
        const [chip, word] = actionWords[orphan.action];
        return (
          <li key={`${orphan.kind} ${orphan.name}`}>
            <div className="row">
              <span className="muted">{kindWords[orphan.kind]}</span>
              <code>{orphan.name}</code>
              <span className={done ? 'chip' : chip}>
                {done && orphan.action === 'delete' ? 'deleted' : word}
              </span>
              {onAdopt && (orphan.kind === 'namespace' || orphan.kind === 'home') && (
                <button
                  type="button"
                  className="button small end"
                  aria-label={`Adopt… ${orphan.name}`}
                  onClick={() => onAdopt(orphan)}
                >
                  Adopt…
                </button>
              )}
            </div>
            <p className="hint">
              {orphan.reason}
              {orphan.since && (
                <>
                  {' '}
                  Since <Ago at={orphan.since} />.
                </>
              )}
            </p>
          </li>
        );
      })}
    </ul>
  );
}

/** Shows what would be deleted and, after confirmation, what was. */
function CleanDialog({ place, onClose }: { place: OrphanPlace; onClose: () => void }) {
  const client = useQueryClient();
  const proposal = useQuery({
    queryKey: ['orphans-dry-run', place],
    queryFn: ({ signal }) => call(cleanOrphans, { body: { dryRun: true, ...place }, signal }),
    gcTime: 0,
    staleTime: Number.POSITIVE_INFINITY,
  });
  const clean = useMutation({
    mutationFn: () => call(cleanOrphans, { body: { dryRun: false, ...place } }),
    onSettled: () => client.invalidateQueries({ queryKey: ['orphans'] }),
  });
  const going = doomed(proposal.data?.items);
  if (clean.data) {
    const count = doomed(clean.data.items).length;
    return (
      <Dialog title={`Cleaned ${placeWords(place)}`} onClose={onClose} wide>
        <div className="body">
          <p>
            {count === 0 ? 'Nothing was deleted.' : `${counted(place, count)} deleted; h${keptHomes(place)}`}
          </p>
          <OrphanList items={clean.data.items} done />
          <div className="form-foot">
            <button type="button" className="button primary" onClick={onClose}>
              Done
            </button>
          </div>
        </div>
      </Dialog>
    );
  }
  return (
    <Dialog title={`Clean ${placeWords(place)}`} onClose={onClose} wide>
      <div className="body">
        {proposal.isPending && !proposal.error && (
          <p className="row muted" role="status">
            <Spinner /> Looking for orphans…
          </p>
        )}
        <Problem error={proposal.error ?? clean.error} />
        {proposal.data && (
          <>
            <p>
              {going.length === 0
                ? 'There is nothing left to delete.'
                : `This deletes ${counted(place, going.length)} and all that runs there. H${keptHomes(place)}`}
            </p>
            <OrphanList items={going} />
          </>
        )}
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            {going.length === 0 ? 'Close' : 'Leave them'}
          </button>
          {going.length > 0 && (
            <button
              type="button"
              className="button danger filled"
              disabled={clean.isPending}
              onClick={() => clean.mutate()}
            >
              {clean.isPending ? 'Deleting…' : `Delete ${counted(place, going.length)}`}
            </button>
          )}
        </div>
      </div>
    </Dialog>
  );
}
