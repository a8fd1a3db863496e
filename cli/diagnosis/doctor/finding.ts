import type { CheckResult } from '@cde/api/checks.ts';
import type { Finding } from '@cde/api/findings.ts';
import type { Format } from '../../command/result.ts';
import { toFailure } from '../../failure/failure.ts';
import { adviceLines } from '../../output/actions.ts';
import { clean } from '../../output/output.ts';

/** A finding without what is empty. */
export function makeFinding(
  severity: Finding['severity'],
  code: string,
  message: string,
  more: Partial<Pick<Finding, 'detail' | 'hint' | 'actions' | 'dependsOn'>> = {},
): Finding {
  return { code, severity, message, dependsOn: [], ...more };
}

/** A failed call as a finding, with the code of the failure. */
export function findingOf(error: unknown, severity: Finding['severity'] = 'error'): Finding {
  const { code, message, detail, hint, actions } = toFailure(error);
  return makeFinding(severity, code, message, {
    ...(detail && { detail }),
    ...(hint && { hint }),
    ...(actions && { actions: [...actions] }),
  });
}

/** As an error is printed. */
export function findingLines(finding: Finding, c: Format['colors']): string[] {
  const color = { error: c.red, warning: c.yellow, info: c.cyan }[finding.severity];
  return [
    `${color(`${finding.severity}:`)} ${clean(finding.message)} ${c.dim(`[${finding.code}]`)}`,
    ...(finding.detail?.split('\n') ?? []).map((text) => `  ${clean(text)}`),
    ...adviceLines(finding).map((text) => `  → ${clean(text)}`),
  ];
}

/** A line for each check. */
export function checkLines(checks: readonly Omit<CheckResult, 'findings'>[], c: Format['colors']): string[] {
  const marks = {
    passed: c.green('ok'),
    warned: c.yellow('warning'),
    failed: c.red('failed'),
    skipped: c.dim('skipped'),
  };
  const width = Math.max(...checks.map(({ name }) => name.length));
  return checks.map(
    ({ name, state, because }) =>
      `${name.padEnd(width)}  ${marks[state]}${because.length > 0 ? `: ${because.join(', ')} failed` : ''}`,
  );
}
