import { type Command, flagOf } from '../command/command.ts';
import { Failure } from '../failure/failure.ts';

/** API fields whose option has a different name. */
const optionOf: Record<string, string> = {
  expiresInDays: 'days',
  scopes: 'scope',
  username: 'user',
};

/** The argument or option behind a request's field: `NAME`, `--days`, `--param cpus`; otherwise the field itself. */
function commandLineName(command: Command, path: string): string {
  // The longest: `schedule.start`, or all of `schedule`.
  for (let prefix = path; prefix !== ''; prefix = prefix.slice(0, Math.max(0, prefix.lastIndexOf('.')))) {
    const named = command.fields?.[prefix];
    if (named !== undefined) return named;
  }
  const [field = '', second] = path.split('.');
  if (field === 'parameters' && 'param' in command.options) return second ? `--param ${second}` : '--param';
  for (const key of [field, optionOf[field]]) {
    if (key === undefined) continue;
    const option = Object.hasOwn(command.options, key) ? command.options[key] : undefined;
    // `--no-schedule` sets no value.
    if (option && option.kind !== 'no') return flagOf(key, option);
    for (const name of [key, `${key}s`])
      if (Object.hasOwn(command.arguments, name)) return name.toUpperCase();
  }
  return path;
}

/**
 * Rewords the API's error for the command line: names the invalid argument or option instead of the request's field.
 */
export function toCommandLineTerms(command: Command, failure: Failure): Failure {
  const { issues } = failure;
  if (!issues?.length || !['bad-request', 'parameters-invalid'].includes(failure.code)) return failure;
  const isParameters = failure.code === 'parameters-invalid';
  const renamed = issues.map((issue) => ({
    ...issue,
    path: commandLineName(
      command,
      isParameters && 'param' in command.options
        ? `parameters.${issue.path.replace(/^parameters\./, '')}`
        : issue.path,
    ),
  }));
  const [first] = renamed;
  const message = isParameters
    ? failure.message
    : renamed.length === 1
      ? `${first!.path || 'The command'} is not valid: ${first!.message.replace(/\.?$/, '.')}`
      : `${renamed.length} values are not valid.`;
  return new Failure(failure.code, message, {
    exitCode: failure.exitCode,
    hint: failure.hint ?? (failure.actions ? undefined : `See: cde ${command.name} --help`),
    actions: failure.actions,
    requestId: failure.requestId,
    issues: renamed.length === 1 && !isParameters ? undefined : renamed,
    cause: failure,
  });
}
