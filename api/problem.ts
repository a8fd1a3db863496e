import type { Action } from './actions.ts';
import type { ApiError } from './errors.ts';

/**
 * Every error code of the API with its HTTP status. docs/errors.md explains each, and a test compares the two lists.
 * Codes are stable: clients depend on them.
 */
export const catalogue = {
  'bad-request': 400,
  'idempotency-key-reused': 422,
  'idempotency-in-progress': 409,
  'sign-in-required': 401,
  'sign-in-failed': 401,
  'token-expired': 401,
  'token-invalid': 401,
  'link-invalid': 401,
  'sign-in-throttled': 429,
  'csrf-rejected': 403,
  forbidden: 403,
  'scope-too-small': 403,
  'user-suspended': 403,
  'oidc-failed': 401,
  'oidc-not-configured': 404,
  'route-not-found': 404,
  'user-not-found': 404,
  'username-taken': 409,
  'email-taken': 409,
  'user-has-workspaces': 409,
  'last-owner': 409,
  'password-wrong': 403,
  'cli-login-not-found': 404,
  'token-not-found': 404,
  'token-limit-reached': 409,
  'template-not-found': 404,
  'template-version-not-found': 404,
  'template-invalid': 422,
  'template-in-use': 409,
  'parameters-invalid': 422,
  'provider-not-available': 409,
  'cluster-not-found': 404,
  'node-not-found': 404,
  'node-ambiguous': 409,
  'cluster-name-taken': 409,
  'cluster-in-use': 409,
  'orphan-not-found': 404,
  'cluster-away': 503,
  'cluster-credentials-invalid': 422,
  'no-kubernetes-namespace': 409,
  'no-builder': 409,
  'registry-secret-invalid': 409,
  'satellite-not-found': 404,
  'satellite-name-taken': 409,
  'satellite-region-fixed': 409,
  'port-host-taken': 409,
  'satellite-web-off': 409,
  'satellite-none-allowed': 503,
  'path-none-allowed': 409,
  'home-not-found': 404,
  'home-not-restorable': 409,
  'workspace-not-found': 404,
  'workspace-name-taken': 409,
  'session-not-found': 404,
  'lease-not-found': 404,
  'lease-too-long': 422,
  'too-many-leases': 409,
  'workspace-deleted': 409,
  'owner-must-agree': 409,
  'cleanup-policy-changed': 409,
  'workspace-busy': 409,
  'workspace-not-running': 409,
  'agent-not-connected': 409,
  'agent-superseded': 410,
  'agent-version-not-found': 404,
  'boot-rejected': 409,
  'port-not-shared': 404,
  'port-request-foreign': 403,
  'port-sign-in-failed': 401,
  'port-sharing-limited': 403,
  'port-unreachable': 502,
  'build-not-found': 404,
  'build-ended': 409,
  'request-too-slow': 408,
  'payload-too-large': 413,
  'unsupported-media-type': 415,
  'path-too-long': 414,
  'headers-too-large': 431,
  'request-timeout': 408,
  'too-many-connections': 429,
  'too-many-requests': 429,
  'server-stopping': 503,
  'server-busy': 503,
  'database-unavailable': 503,
  internal: 500,
} as const;

export type ErrorCode = keyof typeof catalogue;

/** A failure meant for the caller: what happened (`message`), why (`detail`), what to do (`hint`, `actions`). */
export class Problem extends Error {
  readonly code: ErrorCode;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
  readonly actions: readonly Action[] | undefined;
  readonly issues: ApiError['issues'];
  /** Seconds, sent as Retry-After. */
  readonly retryAfter: number | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    more: {
      detail?: string;
      hint?: string;
      actions?: readonly Action[];
      issues?: ApiError['issues'];
      retryAfter?: number;
      cause?: unknown;
    } = {},
  ) {
    super(message, { cause: more.cause });
    this.name = 'Problem';
    this.code = code;
    this.detail = more.detail;
    this.hint = more.hint;
    this.actions = more.actions;
    this.issues = more.issues;
    this.retryAfter = more.retryAfter;
  }

  get status(): number {
    return catalogue[this.code];
  }

  toBody(requestId: string): ApiError {
    return {
      code: this.code,
      message: this.message,
      ...(this.detail === undefined ? {} : { detail: shorten(this.detail) }),
      ...(this.hint === undefined ? {} : { hint: this.hint }),
      ...(this.actions === undefined ? {} : { actions: [...this.actions] }),
      ...(this.issues === undefined ? {} : { issues: this.issues.slice(0, maxIssues) }),
      requestId,
    };
  }
}

/** A body of 2 MB can have a million faults; a person reads the first few. */
export const maxIssues = 100;
const maxDetailLength = 4_000;

const shorten = (text: string) =>
  text.length > maxDetailLength ? `${text.slice(0, maxDetailLength).toWellFormed()}…` : text;
