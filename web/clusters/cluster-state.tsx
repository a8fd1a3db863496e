import type { Cluster } from '@cde/api/clusters.ts';
import { Ago } from '../ui/time.tsx';

const looks: Record<Cluster['state'], [tone: string, word: string]> = {
  ready: ['good', 'Reachable'],
  connecting: ['busy', 'Connecting'],
  away: ['bad', 'Unreachable'],
};

/** Whether a cluster is reachable, as a dot and a word. */
export function ClusterState({ cluster }: { cluster: Cluster }) {
  const [tone, word] = looks[cluster.state];
  return <span className={`status ${tone}`}>{word}</span>;
}

/** Why a cluster is unreachable, and when it was last reached. */
export function WhyUnreachable({ cluster }: { cluster: Cluster }) {
  if (cluster.state !== 'away') return null;
  return (
    <>
      {cluster.reason}{' '}
      {cluster.seenAt ? (
        <span className="nowrap">
          Last reached <Ago at={cluster.seenAt} />.
        </span>
      ) : (
        'It has never been reached.'
      )}
    </>
  );
}
