import { deleteRetainedHome, listRetainedHomes, type RetainedHome } from '@cde/api/workspaces.ts';
import { keepPreviousData, useInfiniteQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useState } from 'react';
import { call } from '../client.ts';
import { useTopic } from '../live/live.ts';
import { createsFor, operates, seesAllWorkspaces, useMe } from '../me.ts';
import { pagedQuery, rowsOf } from '../paging.ts';
import { useTitle } from '../shell.tsx';
import { ConfirmDialog } from '../ui/confirm.tsx';
import { day, moment } from '../ui/format.ts';
import { List } from '../ui/list.tsx';
import { Ago } from '../ui/time.tsx';
import { sayDone } from '../ui/toast.tsx';
import { OwnerFilter } from '../workspaces/owner-filter.tsx';
import '../workspaces/workspaces.css';

// A deletion is told by an event; that a home was restored or its time is over, by none.
const askEveryMs = 15_000;

/** The homes of deleted workspaces, to be restored or given up until their time is over. */
export function HomesPage() {
  useTitle('Homes');
  const me = useMe();
  const navigate = useNavigate();
  const all = seesAllWorkspaces(me.role);
  const search = useSearch({ from: '/signed-in/homes' });
  const owner = all ? (search.owner ?? 'me') : 'me';
  const [discarding, setDiscarding] = useState<RetainedHome | null>(null);
  const homes = useInfiniteQuery({
    ...pagedQuery(['homes', owner], (page, signal) =>
      call(listRetainedHomes, { query: { ...page, ...(owner !== 'all' && { owner }) }, signal }),
    ),
    placeholderData: keepPreviousData,
    refetchInterval: askEveryMs,
  });
  useTopic('workspaces');
  return (
    <main id="main">
      <div className="page-head">
        <h1>Homes</h1>
        {all && (
          <OwnerFilter
            label="Whose homes"
            value={owner}
            onChange={(next) =>
              navigate({ to: '/homes', search: { owner: next === 'me' ? undefined : next } })
            }
          />
        )}
        <p>Of deleted workspaces. Each can be restored into a new workspace until its time is over.</p>
      </div>
      <List
        query={homes}
        rows={rowsOf(homes.data)}
        keyOf={(home) => home.id}
        empty={
          <>
            <strong>No kept homes</strong>
            <p>When a workspace is deleted and its home is kept, it waits here.</p>
            <Link className="button" to="/workspaces">
              Go to the workspaces
            </Link>
          </>
        }
        columns={[
          {
            title: 'Former workspace',
            is: 'name',
            cell: (home) => (
              <>
                {owner !== 'me' && <span className="muted">{home.owner}/</span>}
                <strong>{home.workspace}</strong>
              </>
            ),
          },
          { title: 'Template', cell: (home) => home.template },
          {
            title: 'Place',
            cell: (home) => (home.cluster ? `${home.provider}, ${home.cluster}` : home.provider),
          },
          {
            title: 'Size',
            className: 'nowrap',
            cell: (home) => home.size ?? <span className="muted">unknown</span>,
          },
          { title: 'Kept since', className: 'muted nowrap', cell: (home) => <Ago at={home.deletedAt} /> },
          {
            title: 'Kept until',
            className: 'nowrap',
            cell: (home) => (
              <>
                {day(home.keptUntil)}{' '}
                <span className="muted">
                  <Ago at={home.keptUntil} />
                </span>
              </>
            ),
          },
          {
            title: 'Actions',
            is: 'actions',
            cell: (home) => (
              <div className="row">
                {createsFor(me, home.owner) && (
                  <Link
                    className="button small"
                    to="/workspaces/new"
                    search={{ template: home.template, home: home.id }}
                    aria-label={`Restore the home of ${home.workspace}`}
                  >
                    Restore…
                  </Link>
                )}
                {operates(me, home.owner) && (
                  <button
                    type="button"
                    className="button small danger"
                    aria-label={`Discard the home of ${home.workspace}`}
                    onClick={() => setDiscarding(home)}
                  >
                    Discard…
                  </button>
                )}
              </div>
            ),
          },
        ]}
      />
      {discarding && <DiscardDialog home={discarding} onClose={() => setDiscarding(null)} />}
    </main>
  );
}

function DiscardDialog({ home, onClose }: { home: RetainedHome; onClose: () => void }) {
  const client = useQueryClient();
  async function discard() {
    await call(deleteRetainedHome, { params: { home: home.id } });
    await client.invalidateQueries({ queryKey: ['homes'] });
    sayDone(`The home of ${home.workspace} is given up.`);
  }
  return (
    <ConfirmDialog
      title={`Discard the home of ${home.owner}/${home.workspace}`}
      keep="Keep it"
      confirm="Discard it"
      typed={home.workspace}
      act={discard}
      onClose={onClose}
    >
      Every file in it is lost for good. Left alone, it is kept until {moment(home.keptUntil)}.
    </ConfirmDialog>
  );
}
