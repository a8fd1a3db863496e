import { type CleanupCandidate, previewCleanup, releaseBrake } from '@cde/api/cleanup.ts';
import { policyName, whenText } from '@cde/api/idle-text.ts';
import { longestWarningMs } from '@cde/api/stop-warnings.ts';
import { useInfiniteQuery, useMutation, useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { call } from '../client.ts';
import { managesCleanup, useMe } from '../me.ts';
import { pagedQuery, rowsOf } from '../paging.ts';
import { useTitle } from '../shell.tsx';
import { ConfirmDialog } from '../ui/confirm.tsx';
import { Icon } from '../ui/icons.tsx';
import { List } from '../ui/list.tsx';
import { useNow } from '../ui/time.tsx';
import { sayDone } from '../ui/toast.tsx';
import { PolicyPanel } from './policy-panel.tsx';
import { Report } from './report.tsx';
import '../workspaces/workspaces.css';
import '../idle/idle.css';

// The sweep runs about this often.
const askEveryMs = 15_000;

const previewQuery = pagedQuery(['cleanup-preview'], (query, signal) =>
  call(previewCleanup, { query, signal }),
);

const looks: Record<CleanupCandidate['action'], [tone: string, word: string]> = {
  stop: ['busy', 'Stops'],
  // Amber once its users are warned.
  warn: ['off', 'Due soon'],
  'wait-for-report': ['off', 'Waits for its agent'],
  hold: ['bad', 'Held back'],
  'make-dormant': ['busy', 'Becomes dormant'],
  archive: ['off', 'Will be archived'],
  'announce-deletion': ['warn', 'Announces deletion'],
  'await-deletion': ['warn', 'Will be deleted'],
  delete: ['bad', 'Due for deletion'],
};

/** What stops idle workspaces: what is due, the bounds, and what it saved. */
export function CleanupPage() {
  useTitle('Cleanup');
  const manages = managesCleanup(useMe().role);
  const preview = useInfiniteQuery({ ...previewQuery, refetchInterval: askEveryMs });
  const candidates = rowsOf(preview.data);
  const held = candidates.filter(({ action }) => action === 'hold');
  const now = useNow(10_000);
  return (
    <main id="main">
      <div className="page-head">
        <h1>Cleanup</h1>
        <p>
          Idle workspaces stop by themselves. Those that no person has used for a long time can be archived
          and deleted. Homes are retained.
        </p>
      </div>
      <div className="stack">
        {held.length > 0 && (
          <Brake
            held={held.length}
            deletions={held.filter(({ cause }) => cause === 'delete').length}
            canRelease={manages}
          />
        )}
        <div className="cleanup-columns">
          <div className="stack">
            <Report />
            <section aria-labelledby="due-title" className="stack tight">
              <h2 id="due-title">Due</h2>
              <List
                query={preview}
                rows={candidates}
                keyOf={(row) => `${row.workspaceId} ${row.action}`}
                empty={
                  <>
                    <strong>Nothing is due</strong>
                    <p>
                      Workspaces that stop within the next hour, and announced deletions, appear here with the
                      reason.
                    </p>
                  </>
                }
                columns={columns(now)}
              />
            </section>
          </div>
          <PolicyPanel canChange={manages} />
        </div>
      </div>
    </main>
  );
}

const columns = (now: number) => [
  {
    title: 'Workspace',
    is: 'name' as const,
    cell: ({ workspace, template }: CleanupCandidate) => {
      const [owner = '', name = ''] = workspace.split('/');
      return (
        <>
          <Link to="/workspaces/$owner/$name" params={{ owner, name }}>
            {workspace}
          </Link>
          <p className="hint">{template}</p>
        </>
      );
    },
  },
  {
    title: 'Action',
    cell: ({ action, at }: CleanupCandidate) => {
      const isWarned = action === 'warn' && Date.parse(at) - now <= longestWarningMs;
      const [tone, word] = isWarned ? ['warn', 'Users are warned'] : looks[action];
      return <span className={`status ${tone}`}>{word}</span>;
    },
  },
  {
    title: 'Due',
    className: 'nowrap',
    // What the next sweep does has not happened yet.
    cell: ({ action, at }: CleanupCandidate) =>
      action === 'archive' || action === 'announce-deletion' ? 'now' : whenText(at, now),
  },
  {
    title: 'Why',
    className: 'cell-words',
    cell: ({ text, cause }: CleanupCandidate) => (
      <>
        {text}
        <p className="hint">by {policyName(cause)}</p>
      </>
    ),
  },
];

const countText = (count: number) => `${count} ${count === 1 ? 'workspace' : 'workspaces'}`;

function releaseText(stops: number, deletions: number): string {
  const parts = [
    stops > 0 && `${countText(stops)} will be stopped`,
    deletions > 0 && `${countText(deletions)} will be deleted`,
  ];
  return `${parts.filter(Boolean).join(' and ')} now.`;
}

function Brake(props: { held: number; deletions: number; canRelease: boolean }) {
  const { held, deletions, canRelease } = props;
  const client = useQueryClient();
  const [asking, setAsking] = useState(false);
  const release = useMutation({
    mutationFn: () => call(releaseBrake, { body: {} }),
    onSuccess: ({ released }) => {
      sayDone(`The brake released ${countText(released)}.`);
      return client.invalidateQueries({ queryKey: ['cleanup-preview'] });
    },
  });
  return (
    <div className="notice stop-warning" role="status">
      <Icon name="warning" />
      <span>
        <strong>The brake holds back {countText(held)}.</strong> More would stop within 10 minutes, or be
        deleted within a day, than the bound permits. Check the reasons below: a broken signal looks like
        this.
      </span>
      {canRelease && (
        <button type="button" className="end button small" onClick={() => setAsking(true)}>
          Release…
        </button>
      )}
      {asking && (
        <ConfirmDialog
          title="Release the brake"
          keep="Cancel"
          confirm="Release"
          act={() => release.mutateAsync()}
          onClose={() => setAsking(false)}
        >
          {releaseText(held - deletions, deletions)} Activity until the last moment still prevents it. Homes
          are retained.
        </ConfirmDialog>
      )}
    </div>
  );
}
