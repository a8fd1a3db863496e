import type { LogLine } from '@cde/api/workspaces.ts';
import { type Colors, clean } from '../output.ts';

/** A line of a build's log for a person. */
export function formatLogLine(line: LogLine, colors: Colors, withTime: boolean): string {
  const text = clean(line.text);
  const painted =
    line.level === 'error' ? colors.red(text) : line.level === 'warn' ? colors.yellow(text) : text;
  const time = withTime ? `${colors.dim(line.at.slice(11, 23))} ` : '';
  return `${time}${colors.dim(line.stage.padEnd(9))} ${painted}`;
}
