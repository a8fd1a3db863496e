import type { Fault, ParameterValue, ParameterValues, TemplateContent } from '@cde/api/templates.ts';
import type { Rendered } from '../providers/provider.ts';
import { makeScope, type RenderContext, type Scope } from './expressions.ts';
import { convert, wantAt } from './fields.ts';
import { formatPath, type Path } from './source.ts';

export type { RenderContext } from './expressions.ts';
export { checkParameters } from './parameters.ts';

/** A fault of rendering: a stored version has no lines, only paths. */
export type RenderFault = Pick<Fault, 'path' | 'message' | 'hint'>;

/** Names that the template's own `env` may not have: we set them. */
export const reservedEnv = /^CDE_|^(HOME|USER|LOGNAME)$/;

/** The variable in which the workspace's processes find a parameter: `CDE_PARAM_REPO`. */
export function parameterVariable(name: string): string {
  return `CDE_PARAM_${name.toUpperCase()}`;
}

/** A parameter's value as text: a list is one item a line. */
export function parameterText(value: ParameterValue): string {
  return Array.isArray(value) ? value.join('\n') : String(value);
}

/** Evaluates the text at `path`, and checks it against what the field wants. */
export function renderField(
  scope: Scope,
  path: Path,
  value: unknown,
  parameters: ParameterValues,
  context: RenderContext,
): { ok: string | number } | { message: string; hint?: string; offset?: number } {
  const want = wantAt(path) ?? 'text';
  if (typeof value !== 'string' || !value.includes('${{')) return convert(want, value);
  const compiled = scope.compile(value);
  if (Array.isArray(compiled)) return compiled[0]!;
  const result = compiled.evaluate(parameters, context);
  return 'ok' in result ? convert(want, result.ok) : result;
}

/**
 * Evaluates the expressions of a template.
 * @param parameters complete and checked: what `checkParameters` returned
 * @returns the template with `env` as texts, `local.memory` in bytes, `local.cpus` and `local.processes`
 *   as numbers. `env` also holds `local.env`, the parameters (`CDE_PARAM_NAME`) and the workspace
 *   (`CDE_WORKSPACE_NAME` …), for the startup script and every session.
 */
export function renderTemplate(
  template: TemplateContent,
  parameters: ParameterValues,
  context: RenderContext,
): { ok: Rendered } | { faults: RenderFault[] } {
  const faults: RenderFault[] = [];
  const scope = makeScope(template.parameters);
  const field = (path: Path, value: unknown): string | number | undefined => {
    if (value === undefined) return undefined;
    const result = renderField(scope, path, value, parameters, context);
    if ('ok' in result) return result.ok;
    faults.push({ path: formatPath(path), message: result.message, hint: result.hint });
    return undefined;
  };
  const texts = (path: Path, env: Record<string, unknown>): Record<string, string> =>
    Object.fromEntries(
      Object.entries(env).map(([name, value]) => [name, String(field([...path, name], value))]),
    );

  const localEnv = texts(['local', 'env'], template.local.env ?? {});
  const rendered: Rendered = {
    ...template,
    parameters,
    env: {
      ...texts(['env'], template.env),
      ...localEnv,
      ...Object.fromEntries(
        Object.entries(parameters).map(([name, value]) => [parameterVariable(name), parameterText(value)]),
      ),
      CDE_WORKSPACE_ID: context.workspace.id,
      CDE_WORKSPACE_NAME: context.workspace.name,
      CDE_WORKSPACE_OWNER: context.workspace.owner,
      CDE_OWNER_NAME: context.owner.name,
      CDE_OWNER_EMAIL: context.owner.email,
    },
    home: { size: field(['home', 'size'], template.home.size)?.toString() },
    local: {
      memory: field(['local', 'memory'], template.local.memory),
      cpus: field(['local', 'cpus'], template.local.cpus),
      processes: field(['local', 'processes'], template.local.processes),
      env: localEnv,
    },
  };
  return faults.length > 0 ? { faults } : { ok: rendered };
}
