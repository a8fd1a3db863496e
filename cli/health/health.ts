import type { Context } from '../command/context.ts';
import { line, type Result, result } from '../command/result.ts';
import { getHealth } from '../connection/endpoints.ts';
import { checkLines, findingLines } from '../diagnosis/doctor/finding.ts';
import { exitCodes } from '../failure/exit-codes.ts';

export async function health(context: Context): Promise<Result> {
  const client = await context.client();
  const found = await client.call(getHealth);
  const { checks, findings } = found;
  const isBroken = findings.some(({ severity }) => severity === 'error');
  return result(
    found,
    ({ colors: c, moment }) => {
      return [
        ...checkLines(checks, c).map(line),
        ...findings.flatMap((finding) => [
          line(''),
          ...findingLines(finding, c).map(line),
          line(c.dim(`  since ${moment(finding.since)}`)),
        ]),
        findings.length === 0 && line(''),
        findings.length === 0 && line('Nothing is wrong.'),
      ];
    },
    isBroken ? exitCodes.failure : exitCodes.success,
  );
}
