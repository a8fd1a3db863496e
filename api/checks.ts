import type { Finding } from './findings.ts';

/** One thing that a diagnosis looks at. */
export interface Check {
  name: string;
  /** Names of checks before this one. If one of them failed, this one would only repeat that, and is skipped. */
  dependsOn?: readonly string[];
  run(signal: AbortSignal): Finding[] | Promise<Finding[]>;
}

export interface CheckResult {
  name: string;
  /** `failed`: there is an error among its findings. */
  state: 'passed' | 'warned' | 'failed' | 'skipped';
  /** If skipped: the checks that failed. */
  because: string[];
  findings: Finding[];
}

const defaultTimeoutMs = 20_000;

/**
 * Runs checks at the same time, each as soon as those that it depends on have passed. A check that throws or takes too
 * long is a finding about itself, and no reason to skip others. Rejects only when the signal is aborted.
 */
export async function runChecks(
  checks: readonly Check[],
  options: { signal: AbortSignal; timeoutMs?: number },
): Promise<CheckResult[]> {
  const { signal, timeoutMs = defaultTimeoutMs } = options;
  const running = new Map<string, Promise<CheckResult>>();
  for (const check of checks) {
    const dependencies = (check.dependsOn ?? []).map((name) => {
      const found = running.get(name);
      if (!found) throw new Error(`the check ${check.name} depends on ${name}, which is not before it`);
      return found;
    });
    running.set(check.name, runCheck(check, dependencies, signal, timeoutMs));
  }
  const results = await Promise.all(running.values());
  signal.throwIfAborted();
  return results;
}

async function runCheck(
  check: Check,
  dependencies: readonly Promise<CheckResult>[],
  signal: AbortSignal,
  timeoutMs: number,
): Promise<CheckResult> {
  const { name } = check;
  const before = await Promise.all(dependencies);
  const because = new Set(
    before.flatMap((each) =>
      each.state === 'failed' ? [each.name] : each.state === 'skipped' ? each.because : [],
    ),
  );
  if (because.size > 0) return { name, state: 'skipped', because: [...because], findings: [] };
  const findings = await findingsOf(check, signal, timeoutMs);
  const has = (severity: Finding['severity']) => findings.some((each) => each.severity === severity);
  const state = has('error') ? 'failed' : has('warning') ? 'warned' : 'passed';
  return { name, state, because: [], findings };
}

async function findingsOf(check: Check, signal: AbortSignal, timeoutMs: number): Promise<Finding[]> {
  const timeout = AbortSignal.timeout(timeoutMs);
  const both = AbortSignal.any([signal, timeout]);
  const stopped = new Promise<never>((_, reject) => {
    both.addEventListener('abort', () => reject(both.reason), { once: true });
  });
  stopped.catch(() => {});
  try {
    both.throwIfAborted();
    return await Promise.race([check.run(both), stopped]);
  } catch (error) {
    if (timeout.aborted)
      return [
        {
          code: 'check-timeout',
          severity: 'warning',
          dependsOn: [],
          message: `The check ${check.name} did not end within ${timeoutMs / 1_000} s.`,
        },
      ];
    return [
      {
        code: 'check-failed',
        severity: 'warning',
        dependsOn: [],
        message: `The check ${check.name} could not be made.`,
        detail: (error as Error).message,
      },
    ];
  }
}

/**
 * The findings without those that another one explains, so that a consequence never hides its cause. Errors first. Of
 * findings that explain each other, all stay.
 */
export function rootFindings(findings: readonly Finding[]): Finding[] {
  const made = new Set(findings.map(({ code }) => code));
  const causes = ({ code, dependsOn }: Finding) =>
    dependsOn.filter((each) => each !== code && made.has(each));
  const explained = new Set<string>();
  // From the findings without a cause onwards.
  const queue = findings.filter((each) => causes(each).length === 0).map(({ code }) => code);
  const roots = new Set(queue);
  for (let code = queue.shift(); code !== undefined; code = queue.shift())
    for (const each of findings)
      if (!roots.has(each.code) && !explained.has(each.code) && each.dependsOn.includes(code)) {
        explained.add(each.code);
        queue.push(each.code);
      }
  const order = { error: 0, warning: 1, info: 2 };
  return findings
    .filter(({ code }) => !explained.has(code))
    .sort((one, other) => order[one.severity] - order[other.severity]);
}
