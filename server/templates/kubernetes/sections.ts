import type { KubernetesSection } from '@cde/api/template-file.ts';
import type { Fault } from '@cde/api/templates.ts';
import { formatQuantity, parseQuantity } from '../../providers/quantity.ts';
import type { Path, Source } from '../language/source.ts';
import { asMap, type Issue } from '../language/tree.ts';

/** Names in the namespace that services of a template may not have: the provider's own objects have them. */
const ownNames = new Set(['workspace', 'builder', 'home', 'builder-cache']);

const isProvider = (name: string) => ['local', 'docker', 'incus', 'ec2', 'gce', 'kubernetes'].includes(name);

/** A provider's section that is missing, or is there for nothing. */
export function checkSections(source: Source): Fault[] {
  const root = asMap(source.value);
  const faults: Fault[] = [];
  const provider = String(root.provider);
  const needsImage = isProvider(provider) && provider !== 'local';
  if (needsImage && root[provider] === undefined)
    faults.push(
      source.fault(
        ['provider'],
        `the section "${provider}" is missing`,
        `it names at least the image: ${provider}: {image: …}`,
      ),
    );
  for (const section of ['local', 'docker', 'incus', 'ec2', 'gce', 'kubernetes'] as const) {
    // `local: {}` says nothing.
    const said =
      section === 'local' ? Object.keys(asMap(root.local)).length > 0 : root[section] !== undefined;
    if (section === provider || !isProvider(provider) || !said) continue;
    faults.push(
      source.faultAtKey(
        [section],
        `the section "${section}" is of another provider`,
        `remove it, or write provider: ${section}`,
      ),
    );
  }
  return faults;
}

/**
 * What values of the section cannot be together: refused when the template is published, rather than by the
 * cluster when somebody starts a workspace. Called on the rendered section; what still is an expression is
 * taken for right.
 */
export function sectionIssues(section: KubernetesSection): Issue[] {
  const issues: Issue[] = [];
  const report = (path: Path, message: string, hint: string) =>
    issues.push({ path: ['kubernetes', ...path], message, hint });
  const { podSecurity, user, builder, services } = section;

  if (podSecurity === 'restricted' && user === 0) {
    report(
      ['user'],
      'the user is root, which podSecurity: restricted does not permit',
      'choose another user, such as 1000, or podSecurity: baseline',
    );
  }
  if (podSecurity === 'restricted' && user === 'image') {
    report(
      ['user'],
      'the user of the image may be root, which podSecurity: restricted does not permit',
      'write the number of the user: user: 1000',
    );
  }
  if (podSecurity === 'restricted' && section.allowPrivilegeEscalation) {
    report(
      ['allowPrivilegeEscalation'],
      'programs that make their user root, which podSecurity: restricted does not permit',
      'leave it out, or choose podSecurity: baseline',
    );
  }
  if (builder && podSecurity === 'restricted') {
    report(
      ['builder'],
      'a builder sets up namespaces for its build steps, which podSecurity: restricted does not permit',
      'choose podSecurity: baseline, or do without the builder',
    );
  } else if (typeof builder === 'object' && !builder.rootless && podSecurity !== 'privileged') {
    report(
      ['builder', 'rootless'],
      `a builder that is not rootless is a privileged container, which podSecurity: ${podSecurity} does not permit`,
      'write rootless: true, or podSecurity: privileged',
    );
  }
  if (typeof section.cluster === 'object' && Object.keys(section.cluster.labels).length === 0) {
    report(['cluster', 'labels'], '"labels" chooses no cluster', 'name a label, or leave "cluster" out');
  }

  const names = new Set<string>();
  for (const [index, service] of services.entries()) {
    const at = ['services', index];
    if (ownNames.has(service.name)) {
      report([...at, 'name'], `the name "${service.name}" is taken by us`, 'choose another name');
    } else if (names.has(service.name)) {
      report([...at, 'name'], `there are two services "${service.name}"`, 'choose another name');
    }
    names.add(service.name);
    const { ready } = service;
    if (ready && (ready.port === undefined) === (ready.command === undefined)) {
      report([...at, 'ready'], '"ready" is either a port or a command', 'write one of them');
    }
    if (ready?.command?.length === 0) {
      report([...at, 'ready', 'command'], 'the command is empty', 'write its words, such as [pg_isready]');
    }
    if (podSecurity === 'restricted' && (service.user === 0 || service.user === 'image')) {
      report(
        [...at, 'user'],
        `the service ${service.name} may run as root, which podSecurity: restricted does not permit`,
        'write the number of another user',
      );
    }
    for (const [nth, port] of service.ports.entries()) {
      if (typeof port === 'number' && service.ports.indexOf(port) < nth) {
        report([...at, 'ports', nth], `the port ${port} stands here twice`, 'keep one of them');
      }
    }
  }

  for (const key of ['cpus', 'memory'] as const) {
    const requested = amount(section.requests?.[key]);
    const limit = amount(section[key]);
    if (requested !== null && limit !== null && requested > limit) {
      report(
        ['requests', key],
        `${show(key, requested)} are requested, and at most ${show(key, limit)} allowed`,
        `raise kubernetes.${key}, or request less`,
      );
    }
  }
  return issues;
}

/** A rendered amount as a number; null where there is none, or where it still is an expression. */
function amount(value: string | number | undefined): number | null {
  if (value === undefined) return null;
  return typeof value === 'number' ? value : parseQuantity(value);
}

const show = (key: 'cpus' | 'memory', value: number) =>
  key === 'memory' ? formatQuantity(value) : `${Math.round(value * 1000) / 1000} cores`;
