import { type Build, type BuildStage, type Stage, stages } from '@cde/api/workspaces.ts';
import { duration } from '../ui/format.ts';
import { Icon } from '../ui/icons.tsx';
import { ActionButtons } from '../ui/problem.tsx';
import { useNow } from '../ui/time.tsx';
import { BuildStatusMark, buildWords, ended } from './status.tsx';

const words: Record<Stage, string> = {
  queued: 'Queued',
  render: 'Render',
  provision: 'Provision',
  agent: 'Agent',
  startup: 'Startup script',
  ready: 'Ready',
};

/** The stages of a build with their times, counting while they run. */
export function Stages({ build }: { build: Build }) {
  const running = !ended(build);
  const now = useNow(running ? 100 : null);
  const names: readonly Stage[] =
    build.transition === 'stop' || build.transition === 'delete' ? ['queued', 'provision'] : stages;
  const known = new Map(build.stages.map((stage) => [stage.name, stage]));
  const times = names.map((name) => took(known.get(name), now));
  const longest = Math.max(...times.map((time) => time ?? 0), 1);
  const until = build.finishedAt ? Date.parse(build.finishedAt) : now;
  const current = build.stages.findLast((stage) => stage.status === 'running');
  return (
    <section className="panel" aria-labelledby="stages-title">
      <header>
        <h2 id="stages-title">
          {buildWords[build.transition]} <span className="muted">#{build.number}</span>
        </h2>
        <BuildStatusMark build={build} />
        <span className="end muted tabular">
          by {build.initiator}, {duration(until - Date.parse(build.createdAt))}
        </span>
      </header>
      <div className="body stack">
        <p className="hidden" role="status">
          {running ? `Stage ${current ? words[current.name] : 'queued'}` : `Build ${build.status}`}
        </p>
        <ol className="stages">
          {names.map((name, index) => {
            const stage = known.get(name);
            const time = times[index];
            return (
              <li key={name} className={`stage ${stage?.status ?? 'waiting'}`}>
                <span className="stage-mark">
                  {stage?.status === 'succeeded' && <Icon name="check" />}
                  {(stage?.status === 'failed' || stage?.status === 'cancelled') && <Icon name="cross" />}
                </span>
                <span className="stage-name">
                  {words[name]}
                  <span className="hidden">: {stage?.status ?? (running ? 'to come' : 'not reached')}</span>
                </span>
                <span className="stage-bar" aria-hidden="true">
                  {time !== null && time !== undefined && (
                    <span style={{ width: `${Math.max(0.5, (100 * time) / longest)}%` }} />
                  )}
                </span>
                <span className="stage-time">
                  {time === null || time === undefined ? '' : duration(time)}
                </span>
              </li>
            );
          })}
        </ol>
        {build.error && (
          <div className="problem" role="alert">
            <Icon name="warning" />
            <div>
              <p className="problem-message">{build.error.message}</p>
              {build.error.detail && <p className="pre-line">{build.error.detail}</p>}
              {build.error.hint && <p>{build.error.hint}</p>}
              <ActionButtons actions={build.error.actions} />
              <p className="problem-code">
                <code>{build.error.code}</code>
                {build.error.fault === 'system' ? ' · a problem with the server, not your workspace' : ''}
              </p>
            </div>
          </div>
        )}
      </div>
    </section>
  );
}

function took(stage: BuildStage | undefined, now: number): number | null {
  if (!stage) return null;
  return Math.max(0, (stage.finishedAt ? Date.parse(stage.finishedAt) : now) - Date.parse(stage.startedAt));
}
