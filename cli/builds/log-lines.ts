import type { LogLine } from '@cde/api/workspaces.ts';
import { type Colors, clean } from '../output/output.ts';

/** Formats a line of a build's log. */
export function formatLogLine(line: LogLine, colors: Colors, withTime: boolean): string {
  const time = withTime ? `${colors.dim(line.at.slice(11, 23))} ` : '';
  const start = `${time}${colors.dim(line.stage.padEnd(9))} `;
  return line.text
    .split('\n')
    .map((part) => {
      const text = clean(part);
      if (line.level === 'error') return start + colors.red(text);
      return start + (line.level === 'warn' ? colors.yellow(text) : text);
    })
    .join('\n');
}
