import { CallError } from '../client.ts';

/**
 * What the API says about fields of a form, as sentences below them. `fieldOf` names the field that a path of the request is
 * set by; null: no field of this form.
 */
export function faultsOf<F extends string>(
  error: unknown,
  fieldOf: (path: string) => F | null,
): Partial<Record<F, string>> {
  const faults: Partial<Record<F, string>> = {};
  if (!(error instanceof CallError)) return faults;
  for (const { path, message } of error.body.issues ?? []) {
    const field = fieldOf(path);
    if (field !== null) faults[field] ??= `${message.charAt(0).toUpperCase()}${message.slice(1)}.`;
  }
  return faults;
}
