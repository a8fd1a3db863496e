import type { Build, BuildStage, LogLine } from '@cde/api/workspaces.ts';
import { cut } from '../output/columns.ts';
import { clean, harmless, type Output } from '../output/output.ts';
import { duration } from '../output/times.ts';

/** Shows the progress of builds: rewritten lines on a terminal, otherwise one line for each finished stage. */
export interface Progress {
  update(name: string, build: Build, lines: LogLine[]): void;
  /** Stops, and leaves the lines on the terminal. */
  finish(): void;
}

const verbs = { start: 'Starting', stop: 'Stopping', update: 'Updating', delete: 'Deleting' } as const;
const frames = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/** Ten frames a second look alive and cost nothing. */
const frameMs = 100;

interface Tracked {
  build: Build;
  lastLine: string;
  /** When this process first saw each stage run: the server's clock may differ from ours. */
  seen: Map<string, number>;
}

/** Makes a Progress on stderr; with --json it shows nothing. */
export function makeProgress(out: Output): Progress {
  if (out.json) return { update() {}, finish() {} };
  return out.live ? makeLive(out) : makePlain(out);
}

function lengthOf(stage: BuildStage, seen: Map<string, number>): string {
  if (stage.finishedAt) return duration(Date.parse(stage.finishedAt) - Date.parse(stage.startedAt));
  return duration(performance.now() - (seen.get(stage.name) ?? performance.now()));
}

function makePlain(out: Output): Progress {
  const told = new Set<string>();
  return {
    update(name, build, lines) {
      if (!told.has(build.id)) {
        told.add(build.id);
        out.note(`${verbs[build.transition]} ${name} (build ${build.number})`);
      }
      for (const stage of build.stages) {
        const key = `${build.id} ${stage.name}`;
        if (stage.status === 'running' || told.has(key)) continue;
        told.add(key);
        out.note(`${name}: ${stage.name} ${stage.status} (${lengthOf(stage, new Map())})`);
      }
      // Only while the build is stuck. If it fails, the caller prints the error with the last log lines.
      for (const line of lines)
        if (line.level === 'warn' && line.source !== 'startup' && line.source !== 'shutdown')
          out.note(`${name}: ${clean(line.text)}`);
    },
    finish() {},
  };
}

function makeLive(out: Output): Progress {
  const tracked = new Map<string, Tracked>();
  const c = out.noteColors;
  const { stderr } = process;
  let drawn = 0;
  let frame = 0;

  function mark(status: BuildStage['status']): string {
    if (status === 'running') return c.cyan(frames[frame % frames.length]!);
    if (status === 'succeeded') return c.green('✓');
    return status === 'failed' ? c.red('✗') : c.yellow('-');
  }

  function linesOf(name: string, { build, lastLine, seen }: Tracked): string[] {
    const width = (stderr.columns || 80) - 1;
    const current = build.stages.findLast((stage) => stage.status === 'running') ?? build.stages.at(-1);
    const tail = (used: number) => c.dim(cut(lastLine, Math.max(0, width - used)));
    if (tracked.size > 1) {
      const state = current ? `${current.name.padEnd(10)} ${lengthOf(current, seen).padStart(6)}` : '';
      return [`${mark(current?.status ?? 'running')} ${name.padEnd(24)} ${state}  ${tail(46)}`];
    }
    return [
      `${verbs[build.transition]} ${c.bold(name)} ${c.dim(`build ${build.number}`)}`,
      ...build.stages.map((stage) => {
        const last = stage === current && stage.status === 'running' ? `  ${tail(24)}` : '';
        return `  ${mark(stage.status)} ${stage.name.padEnd(10)} ${lengthOf(stage, seen).padStart(6)}${last}`;
      }),
    ];
  }

  function draw() {
    frame += 1;
    // Only as many lines as the terminal has can be rewritten, so show the last ones.
    const lines = [...tracked]
      .flatMap(([name, entry]) => linesOf(name, entry))
      .slice(-(stderr.rows || 24) + 1);
    const up = drawn > 0 ? `\x1b[${drawn}A` : '';
    stderr.write(`${up}${lines.map((line) => `\r\x1b[2K${harmless(line)}\n`).join('')}\x1b[J`);
    drawn = lines.length;
  }

  const timer = setInterval(() => tracked.size > 0 && draw(), frameMs);
  timer.unref();

  return {
    update(name, build, lines) {
      const entry = tracked.get(name) ?? { build, lastLine: '', seen: new Map() };
      // Another build of the same workspace: reset its stages.
      if (entry.build.id !== build.id) entry.seen.clear();
      entry.build = build;
      for (const stage of build.stages)
        if (!entry.seen.has(stage.name)) entry.seen.set(stage.name, performance.now());
      const last = lines.at(-1);
      if (last) entry.lastLine = clean(last.text);
      tracked.set(name, entry);
      draw();
    },
    finish() {
      clearInterval(timer);
    },
  };
}
