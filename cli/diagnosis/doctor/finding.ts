import type { Finding } from '@cde/api/findings.ts';
import { toFailure } from '../../failure/failure.ts';

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
