import { type Check, type CheckResult, rootFindings, runChecks } from '@cde/api/checks.ts';
import type { Finding } from '@cde/api/findings.ts';
import type { Context } from '../../command/context.ts';
import { type Blocks, type Format, line, type Result, result } from '../../command/result.ts';
import { exitCodes } from '../../failure/exit-codes.ts';
import { accountChecks } from './account.ts';
import { editorCheck } from './editor.ts';
import { checkLines, findingLines } from './finding.ts';
import { networkChecks } from './network.ts';
import { sshCheck } from './ssh.ts';
import { workspaceCheck } from './workspace.ts';

export interface Diagnosis {
  checks: Omit<CheckResult, 'findings'>[];
  /** Without those that another one explains; errors first. */
  findings: Finding[];
}

/** Exits with the code of the first thing that does not work; warnings do not count. */
export async function doctor(context: Context, input: { workspace: string | undefined }): Promise<Result> {
  context.out.note('Checking.');
  const diagnosis = await diagnose(context, input.workspace);
  return result(diagnosis, (format) => view(diagnosis, format), exitCodeOf(diagnosis));
}

export async function diagnose(context: Context, workspace: string | undefined): Promise<Diagnosis> {
  const results = await runChecks(makeChecks(context, workspace), { signal: context.signal });
  return {
    checks: results.map(({ findings: _, ...check }) => check),
    findings: rootFindings(results.flatMap(({ findings }) => findings)),
  };
}

/** Without a network nothing else is worth reading, so all else depends on it. */
function makeChecks(context: Context, workspace: string | undefined): Check[] {
  return [
    ...networkChecks(context),
    ...accountChecks(context),
    workspaceCheck(context, workspace),
    sshCheck(context),
    editorCheck(context),
  ];
}

const codes: Record<string, number> = {
  network: exitCodes.unreachable,
  configuration: exitCodes.permission,
  dns: exitCodes.unreachable,
  server: exitCodes.unreachable,
  'sign-in': exitCodes.permission,
  satellites: exitCodes.unreachable,
  workspace: exitCodes.conflict,
};

function exitCodeOf({ checks }: Diagnosis): number {
  const failed = checks.find(({ state }) => state === 'failed');
  return failed ? (codes[failed.name] ?? exitCodes.failure) : exitCodes.success;
}

function view({ checks, findings }: Diagnosis, { colors: c }: Format): Blocks {
  return [
    ...checkLines(checks, c).map(line),
    ...findings.flatMap((finding) => [line(''), ...findingLines(finding, c).map(line)]),
    findings.length === 0 && line(''),
    findings.length === 0 && line('Nothing is wrong.'),
  ];
}
