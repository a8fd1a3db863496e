import type { Build, LogLine } from '@cde/api/workspaces.ts';
import { memo, useLayoutEffect, useRef, useState } from 'react';
import { CopyButton } from '../ui/copy.tsx';
import { moment } from '../ui/format.ts';
import { Icon, Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { logText, plainText } from './log.ts';
import { BuildStatusMark, buildWords } from './status.tsx';
import { useLog } from './use-log.ts';

// This near to the end counts as the end, because partly scrolled lines and zoom leave fractions.
const endSlackPx = 24;

interface Props {
  build: Build;
  builds: Build[];
  onChoose: (build: string) => void;
}

/** The log of one build. Follows its end until the user scrolls up. */
export function LogView({ build, builds, onChoose }: Props) {
  const { log, loaded, done, error } = useLog(build);
  const box = useRef<HTMLDivElement>(null);
  const [following, setFollowing] = useState(true);
  // A chosen build starts at its end.
  const shownBuild = useRef(build.id);
  if (shownBuild.current !== build.id) {
    shownBuild.current = build.id;
    if (!following) setFollowing(true);
  }

  // biome-ignore lint/correctness/useExhaustiveDependencies: each new line scrolls
  useLayoutEffect(() => {
    if (following && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [following, log]);

  function onScroll() {
    const element = box.current;
    if (!element) return;
    setFollowing(element.scrollHeight - element.scrollTop - element.clientHeight < endSlackPx);
  }

  const start = Date.parse(build.createdAt);
  return (
    <section className="panel log-panel" aria-labelledby="log-title">
      <header>
        <h2 id="log-title">Log</h2>
        <select
          aria-label="Build"
          className="build-select"
          value={build.id}
          onChange={(event) => onChoose(event.target.value)}
        >
          {builds.map((one) => (
            <option key={one.id} value={one.id}>
              #{one.number} {buildWords[one.transition]}, {one.status}, {moment(one.createdAt)}
            </option>
          ))}
        </select>
        <BuildStatusMark build={build} />
        <div className="end">
          {!done && loaded && following && <span className="muted small-text">following</span>}
          <CopyButton text={() => logText(log)} label="Copy log" />
        </div>
      </header>
      <Problem error={error} />
      <div className="log-box">
        <div
          className="log"
          ref={box}
          onScroll={onScroll}
          role="log"
          aria-live="off"
          aria-label="Build log"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must be reachable by keyboard
          tabIndex={0}
        >
          {log.chunks.map((chunk, index) => (
            <Chunk
              key={chunk[0]!.seq}
              lines={chunk}
              before={log.chunks[index - 1]?.at(-1)?.stage}
              start={start}
            />
          ))}
          {!loaded && !error && (
            <p className="log-note">
              <Spinner /> Loading…
            </p>
          )}
          {loaded && log.last === 0 && (
            <p className="log-note">{done ? 'This build wrote no log.' : 'The log is still empty.'}</p>
          )}
        </div>
        {!following && (
          <button type="button" className="button small to-end" onClick={() => setFollowing(true)}>
            <Icon name="down" /> {done ? 'Scroll to end' : 'Follow'}
          </button>
        )}
      </div>
    </section>
  );
}

const Chunk = memo(function Chunk({
  lines,
  before,
  start,
}: {
  lines: readonly LogLine[];
  before: LogLine['stage'] | undefined;
  start: number;
}) {
  return (
    <div className="log-chunk">
      {lines.map((line, index) => {
        const stage = line.stage === (index === 0 ? before : lines[index - 1]!.stage) ? '' : line.stage;
        return (
          <div key={line.seq} className={`log-line ${line.level}`}>
            <span className="log-time" title={moment(line.at)}>
              {Math.max(0, (Date.parse(line.at) - start) / 1000).toFixed(2)}
            </span>
            <span className="log-stage">{stage}</span>
            <span className="log-text">{plainText(line.text)}</span>
          </div>
        );
      })}
    </div>
  );
});
