import {
  KubernetesBuilder,
  type KubernetesSection,
  type Manifest,
  type TemplateContent,
} from '@cde/api/template-file.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import type { Fault } from '@cde/api/templates.ts';
import type { RenderedTemplate } from '../providers/provider.ts';
import { manifestIssues } from './kubernetes/manifest-rules.ts';
import { quotaIssues } from './kubernetes/quota.ts';
import { sectionIssues } from './kubernetes/sections.ts';
import { makeScope, type RenderContext, type Scope } from './language/expressions.ts';
import { convert, type FieldType, fieldTypeAt, type PlainValue } from './language/fields.ts';
import { parameterText, parameterVariable } from './language/parameters.ts';
import { formatPath, type Path } from './language/source.ts';
import { type Issue, mapScalars } from './language/tree.ts';

/** A fault of rendering: a stored version has no lines, only paths. */
export type RenderFault = Pick<Fault, 'path' | 'message' | 'hint'>;

/** Names that the template's own `env` may not have: we set them. */
export const reservedEnv = /^CDE_|^(HOME|USER|LOGNAME)$/;

/** Of the rendered manifests together; etcd refuses a single object of 1.5 MiB. */
const maxRenderedBytes = 1024 * 1024;

/** Evaluates the text, and checks it against what its field wants. */
function renderField(
  scope: Scope,
  want: FieldType,
  value: unknown,
  parameters: ParameterValues,
  context: RenderContext,
): { ok: PlainValue } | { open: true } | { message: string; hint?: string } {
  if (typeof value !== 'string' || !value.includes('${{')) return convert(want, value);
  const compiled = scope.compile(value);
  if (Array.isArray(compiled)) return compiled[0]!;
  const result = compiled.evaluate(parameters, context);
  if ('ok' in result) return convert(want, result.ok);
  const unknown = [...compiled.parameters].some((name) => !Object.hasOwn(parameters, name));
  return unknown ? { open: true } : result;
}

/**
 * Evaluates the expressions of a template.
 * @param parameters complete and checked: what `checkParameters` returned
 * @returns the template with its values evaluated and typed. `env`: texts; it also holds `local.env` or
 *   `kubernetes.env`, the builder's address, the parameters (`CDE_PARAM_NAME`) and the workspace (`CDE_WORKSPACE_NAME` …), for the
 *   startup script and every session. `home.size` and every size of a volume: a quantity as Kubernetes writes it.
 *   Memory: a number of bytes. CPUs: a number of cores. `local.processes`, `kubernetes.quota.pods` and ports:
 *   whole numbers. `kubernetes.user`: a number, or `image`. `kubernetes.builder`: false, or a map with its
 *   defaults. `manifests`: as applied to the cluster, except for the namespace.
 */
export function renderTemplate(
  template: TemplateContent,
  parameters: ParameterValues,
  context: RenderContext,
): { ok: RenderedTemplate } | { faults: RenderFault[] } {
  const { rendered, faults, issues } = evaluateTemplate(template, parameters, context);
  // Without the manifests: a workspace of an older version starts, even if something beside it does not fit the quota.
  const { manifests: _, ...alone } = rendered;
  if (faults.length === 0) issues.push(...quotaIssues(alone));
  const all = [
    ...faults,
    ...issues.map(({ manifest, path, message, hint }) => ({
      path: manifest === undefined ? formatPath(path) : pathIn(template.manifests![manifest]!, path),
      message,
      hint,
    })),
  ];
  return all.length > 0 ? { faults: all } : { ok: rendered };
}

/** A fault in a manifest is named by its object: `Deployment/postgres: spec.replicas`. */
function pathIn({ kind, metadata }: Manifest, path: Path): string {
  return `${kind}/${metadata.name}: ${formatPath(path)}`;
}

/** What an object is, and is called, no expression decides. */
function isIdentity(path: Path): boolean {
  return ['apiVersion', 'kind', 'metadata.name'].includes(formatPath(path));
}

/** An issue of the section, or of the manifest of that index. */
export type LocatedIssue = Issue & { manifest?: number };

/**
 * `renderTemplate` for a check, too: with parameters missing, what depends on them stays as it is written.
 * @param scope of the template's parameters, for one that is rendered many times
 * @returns besides what is rendered, the faults of single values, and the issues that values have together
 */
export function evaluateTemplate(
  template: TemplateContent,
  parameters: ParameterValues,
  context: RenderContext,
  scope: Scope = makeScope(template.parameters),
): { rendered: RenderedTemplate; faults: RenderFault[]; issues: LocatedIssue[] } {
  const faults: RenderFault[] = [];
  const evaluate = (want: FieldType, value: unknown, path: () => string): PlainValue | undefined => {
    const result = renderField(scope, want, value, parameters, context);
    if ('ok' in result) return result.ok;
    if ('open' in result) return value as string;
    faults.push({ path: path(), message: result.message, hint: result.hint });
    return undefined;
  };
  const field = (path: Path, value: unknown) =>
    value === undefined
      ? undefined
      : (evaluate(fieldTypeAt(path) ?? 'text', value, () => formatPath(path)) as string | number | undefined);
  const texts = (path: Path, env: Record<string, unknown>): Record<string, string> =>
    Object.fromEntries(
      Object.entries(env).map(([name, value]) => [name, String(field([...path, name], value))]),
    );

  const section = <T extends object>(name: string, given: T | undefined) =>
    given &&
    (mapScalars(given, (value, path) => (fieldTypeAt(path) === undefined ? value : field(path, value)), [
      name,
    ]) as T);
  const kubernetes = section<KubernetesSection>(
    'kubernetes',
    // A builder that is just wanted gets what one gets that is written out.
    template.kubernetes?.builder === true
      ? { ...template.kubernetes, builder: KubernetesBuilder.parse({}) }
      : template.kubernetes,
  );
  const docker = section('docker', template.docker);
  const incus = section('incus', template.incus);
  const ec2 = section('ec2', template.ec2);
  const gce = section('gce', template.gce);
  const manifests = template.manifests?.map(
    (manifest) =>
      mapScalars(manifest, (value, path) =>
        typeof value === 'string' && value.includes('${{') && !isIdentity(path)
          ? evaluate('value', value, () => pathIn(manifest, path))
          : value,
      ) as Manifest,
  );
  const home = { size: field(['home', 'size'], template.home.size)?.toString() };
  const issues: LocatedIssue[] = [];
  if (ec2?.spot && ec2.onStop === 'keep')
    issues.push({
      path: ['ec2', 'onStop'],
      message: 'a spot instance cannot be kept when the workspace stops',
      hint: 'leave out spot, or onStop: keep',
    });
  if (kubernetes) {
    issues.push(...sectionIssues(kubernetes));
    manifests?.forEach((manifest, index) => {
      for (const issue of manifestIssues(manifest, kubernetes)) issues.push({ ...issue, manifest: index });
    });
    const size = manifests ? JSON.stringify(manifests).length : 0;
    if (size > maxRenderedBytes) {
      issues.push({
        path: ['kubernetes', 'manifests'],
        message: `the manifests are ${Math.ceil(size / 1024)} KiB once rendered; at most ${maxRenderedBytes / 1024} are allowed`,
        hint: 'give the parameters a maxLength, or keep large texts in an image',
      });
    }
  }

  const localEnv = texts(['local', 'env'], template.local.env ?? {});
  const rendered: RenderedTemplate = {
    ...template,
    parameters,
    env: {
      // Tools inside the workspace find the builder by it; a template may say otherwise.
      ...(kubernetes?.builder && { BUILDKIT_HOST: 'tcp://builder:1234' }),
      ...texts(['env'], template.env),
      ...localEnv,
      ...(docker?.env as Record<string, string> | undefined),
      ...(incus?.env as Record<string, string> | undefined),
      ...(ec2?.env as Record<string, string> | undefined),
      ...(gce?.env as Record<string, string> | undefined),
      ...(kubernetes?.env as Record<string, string> | undefined),
      ...Object.fromEntries(
        Object.entries(parameters).map(([name, value]) => [parameterVariable(name), parameterText(value)]),
      ),
      CDE_WORKSPACE_ID: context.workspace.id,
      CDE_WORKSPACE_NAME: context.workspace.name,
      CDE_WORKSPACE_OWNER: context.workspace.owner,
      CDE_OWNER_NAME: context.owner.name,
      CDE_OWNER_EMAIL: context.owner.email,
    },
    home,
    local: {
      memory: field(['local', 'memory'], template.local.memory),
      cpus: field(['local', 'cpus'], template.local.cpus),
      processes: field(['local', 'processes'], template.local.processes),
      env: localEnv,
    },
    ...(docker && { docker }),
    ...(incus && { incus }),
    ...(ec2 && { ec2 }),
    ...(gce && { gce }),
    ...(kubernetes && { kubernetes }),
    ...(manifests && { manifests }),
  };
  return { rendered, faults, issues };
}
