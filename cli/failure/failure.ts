import type { Action } from '@cde/api/actions.ts';
import type { CallError } from '@cde/api/client.ts';
import type { ApiError } from '@cde/api/errors.ts';
import {
  isSystemError,
  type SystemError,
  systemErrorReason,
  systemErrorText,
} from '@cde/api/system-errors.ts';
import type { TunnelError } from '@cde/tunnel/errors.ts';
import { exitCodeFor, exitCodes } from './exit-codes.ts';

/** Why a command failed: what happened, why, what to do, a stable code and the exit code. */
export class Failure extends Error {
  readonly code: string;
  readonly exitCode: number;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
  readonly actions: readonly Action[] | undefined;
  readonly requestId: string | undefined;
  readonly issues: ApiError['issues'];

  constructor(
    code: string,
    message: string,
    more: Partial<Pick<Failure, 'exitCode' | 'detail' | 'hint' | 'actions' | 'requestId' | 'issues'>> & {
      cause?: unknown;
    } = {},
  ) {
    super(message, { cause: more.cause });
    this.name = 'Failure';
    this.code = code;
    this.exitCode = more.exitCode ?? exitCodes.failure;
    this.detail = more.detail;
    this.hint = more.hint;
    this.actions = more.actions;
    this.requestId = more.requestId;
    this.issues = more.issues;
  }

  /** The output with `--json`: the API's error object and the exit code. */
  toJSON(): ApiError & { exitCode: number } {
    return {
      code: this.code,
      message: this.message,
      ...(this.detail && { detail: this.detail }),
      ...(this.hint && { hint: this.hint }),
      ...(this.actions?.length && { actions: [...this.actions] }),
      ...(this.requestId && { requestId: this.requestId }),
      ...(this.issues && { issues: this.issues }),
      exitCode: this.exitCode,
    };
  }
}

/** An invalid command line: exit code 2. */
export function usage(message: string, hint?: string): Failure {
  return new Failure('usage', message, { exitCode: exitCodes.usage, hint });
}

// Compared by name, so that neither the client nor the tunnel has to be loaded.
const isCallError = (error: unknown): error is CallError =>
  error instanceof Error && error.name === 'CallError' && 'body' in error;
const isTunnelError = (error: unknown): error is TunnelError =>
  error instanceof Error && error.name === 'TunnelError' && 'code' in error;

/** Converts anything thrown to a Failure. Unexpected errors become `internal`, with the stack as detail. */
export function toFailure(error: unknown): Failure {
  if (error instanceof Failure) return error;
  if (isCallError(error)) {
    const { code, message, detail, hint, actions, requestId, issues } = error.body;
    return new Failure(code, message, {
      exitCode: exitCodeFor(code, error.status),
      // The server also lists the issues in `detail`; they are printed one per line instead.
      detail: issues?.length ? undefined : detail,
      hint,
      actions: actions ?? (error.status === 401 ? [{ kind: 'sign-in' }] : undefined),
      requestId,
      issues,
      cause: error,
    });
  }
  if (isTunnelError(error))
    return new Failure(error.code, `${error.message}.`, {
      exitCode: exitCodeFor(error.code, undefined),
      hint: error.hint && `${error.hint}.`,
      cause: error,
    });
  if (isSystemError(error)) return fromSystem(error);
  return new Failure('internal', 'cde itself failed; this is a fault in it.', {
    detail: error instanceof Error ? error.stack : String(error),
    hint: 'Please report it with the lines above.',
    cause: error,
  });
}

/** An error of the operating system, about a file or without a path, such as a full disk under an open file. */
function fromSystem(error: SystemError): Failure {
  const reason = systemErrorReason(error)!;
  const hint = systemErrorText(error.code)?.hint;
  if (error.path)
    return new Failure('file-failed', `${error.path} cannot be used: ${reason}.`, {
      detail: hint ? undefined : error.message,
      hint: hint ?? 'Check that it exists and that you may read and write it.',
      cause: error,
    });
  return new Failure('system-refused', `The operating system refused: ${reason}.`, {
    detail: hint ? undefined : error.message,
    hint,
    cause: error,
  });
}
