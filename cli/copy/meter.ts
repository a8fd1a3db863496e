import { bytes } from '@cde/api/sizes.ts';
import { cut } from '../output/columns.ts';
import { clean, type Output } from '../output/output.ts';
import { duration } from '../output/times.ts';

/** Shows how far a copy is: one rewritten line on a terminal, nothing elsewhere. */
export interface Meter {
  /** A file of this many bytes begins. */
  begin(name: string, size: number): void;
  add(count: number): void;
  /** Removes the line, so that another one can be printed. */
  clear(): void;
}

const updateMs = 100;

export function makeMeter(out: Output): Meter {
  if (!out.live) return { begin() {}, add() {}, clear() {} };
  const { stderr } = process;
  const since = performance.now();
  let current = '';
  let total = 0;
  let done = 0;
  let drawnAt = 0;
  let drawn = false;

  function draw() {
    const now = performance.now();
    if (now - drawnAt < updateMs) return;
    drawnAt = now;
    const seconds = (now - since) / 1000;
    const rate = done / Math.max(0.001, seconds);
    const left = total > done && rate > 0 ? ` ${duration(((total - done) / rate) * 1000)} left` : '';
    const percent = total > 0 ? `${Math.floor((done / total) * 100)}%` : '';
    const text = `${percent.padStart(4)} ${bytes(done)} at ${bytes(rate)}/s${left}`;
    const width = Math.max(0, (stderr.columns || 80) - text.length - 3);
    stderr.write(`\r\x1b[2K${text}  ${out.noteColors.dim(cut(clean(current), width))}`);
    drawn = true;
  }

  return {
    begin(name, size) {
      current = name;
      total += size;
      draw();
    },
    add(count) {
      done += count;
      draw();
    },
    clear() {
      if (drawn) stderr.write('\r\x1b[2K');
      drawn = false;
      drawnAt = 0;
    },
  };
}
