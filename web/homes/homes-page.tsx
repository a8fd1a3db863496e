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

// An event announces a deletion, but not that a home was restored or its grace period ended.
const askEveryMs = 15_000;

/** The homes of deleted workspaces, which can be restored or discarded until their grace period ends. */
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
        <p>
          The homes of deleted workspaces. You can restore each into a new workspace until its grace period
          ends.
        </p>
      </div>
      <List
        query={homes}
        rows={rowsOf(homes.data)}
        keyOf={(home) => home.id}
        empty={
          <>
            <strong>No retained homes</strong>
            <p>When you delete a workspace and keep its home, the home appears here.</p>
            <Link className="button" to="/workspaces">
              Show workspaces
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
            title: 'Location',
            cell: (home) => (home.cluster ? `${home.provider}, ${home.cluster}` : home.provider),
          },
          {
            title: 'Size',
            className: 'nowrap',
            cell: (home) => home.size ?? <span className="muted">unknown</span>,
          },
          { title: 'Deleted', className: 'muted nowrap', cell: (home) => <Ago at={home.deletedAt} /> },
          {
            title: 'Retained until',
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
    sayDone(`Discarded the home of ${home.workspace}.`);
  }
  return (
    <ConfirmDialog
      title={`Discard the home of ${home.owner}/${home.workspace}`}
      keep="Cancel"
      confirm="Discard home"
      typed={home.workspace}
      act={discard}
      onClose={onClose}
    >
      All files in it are deleted permanently. Otherwise it is retained until {moment(home.keptUntil)}.
    </ConfirmDialog>
  );
}
