import { getHealth, type HealthFinding } from '@cde/api/health.ts';
import { useQuery } from '@tanstack/react-query';
import { call } from '../client.ts';
import { useTitle } from '../shell.tsx';
import { Icon, Spinner } from '../ui/icons.tsx';
import { ActionButtons, Problem } from '../ui/problem.tsx';
import { Ago } from '../ui/time.tsx';
import './health.css';

const askEveryMs = 30_000;
const names: Record<HealthFinding['severity'], [label: string, chip: string]> = {
  error: ['Error', 'chip bad'],
  warning: ['Warning', 'chip warn'],
  info: ['Info', 'chip'],
};
const states = { passed: 'ok', warned: 'warning', failed: 'failed', skipped: 'skipped' };

/** What is wrong with the installation, and what to do. */
export function HealthPage() {
  useTitle('Health');
  const query = useQuery({
    queryKey: ['health'],
    queryFn: ({ signal }) => call(getHealth, { signal }),
    refetchInterval: askEveryMs,
  });
  const { data } = query;
  return (
    <main id="main" className="stack">
      <div className="page-head">
        <h1>Health</h1>
        <div className="end">
          <button
            type="button"
            className="button"
            disabled={query.isFetching}
            onClick={() => query.refetch()}
          >
            {query.isFetching ? 'Checking…' : 'Check again'}
          </button>
        </div>
        <p>What is wrong with the installation. What another fault explains is left out.</p>
      </div>
      <Problem error={query.error} retry={() => query.refetch()} />
      {query.isPending && !query.error && (
        <p className="row muted" role="status">
          <Spinner /> Checking…
        </p>
      )}
      {data &&
        (data.findings.length === 0 ? (
          <div className="panel empty">
            <strong>Nothing is wrong</strong>
            <p>Faults of the database, satellites, clusters, nodes, builds and homes appear here.</p>
          </div>
        ) : (
          <ul className="findings" aria-label="Findings, errors first">
            {data.findings.map((finding) => (
              <FindingItem key={`${finding.code} ${finding.target}`} finding={finding} />
            ))}
          </ul>
        ))}
      {data && (
        <section className="panel" aria-labelledby="checks-title">
          <header>
            <h2 id="checks-title">Checks</h2>
          </header>
          <dl className="body facts">
            {data.checks.map(({ name, state, because }) => (
              <div key={name} className="check">
                <dt>{name}</dt>
                <dd className={state}>
                  {states[state]}
                  {because.length > 0 && `: ${because.join(', ')} failed`}
                </dd>
              </div>
            ))}
          </dl>
        </section>
      )}
    </main>
  );
}

function FindingItem({ finding }: { finding: HealthFinding }) {
  const [label, chip] = names[finding.severity];
  return (
    <li className={`panel finding ${finding.severity}`}>
      <Icon name="warning" />
      <div>
        <p>
          <strong>{finding.message}</strong>
        </p>
        {finding.detail && <p className="muted">{finding.detail}</p>}
        {finding.hint && <p>{finding.hint}</p>}
        <ActionButtons actions={finding.actions} />
        <p className="small-text muted">
          <span className={chip}>{label}</span> <code>{finding.code}</code> · noticed{' '}
          <Ago at={finding.since} />
        </p>
      </div>
    </li>
  );
}
