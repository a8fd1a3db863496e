// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written
import type { Fault } from '@cde/api/templates.ts';
import type { Path, Source } from '../language/source.ts';
import { asList, asMap } from '../language/tree.ts';
import { podAt } from './manifest-rules.ts';
import type { ManifestSource } from './manifests.ts';

const maxWarnings = 20;

/** What is permitted, and surprises people later. */
export function templateWarnings(
  source: Source,
  documents: readonly ManifestSource[],
  files: Record<string, string>,
): Fault[] {
  const root = asMap(source.value);
  if (root.provider !== 'kubernetes') return [];
  const warnings: Fault[] = [];
  const section = asMap(root.kubernetes);
  checkImage(source, ['kubernetes', 'image'], section.image);
  checkBuilder();
  for (const [index, service] of asList(section.services).entries()) {
    checkImage(source, ['kubernetes', 'services', index, 'image'], asMap(service).image);
  }
  for (const { source: document, manifest } of documents) {
    const at = podAt(manifest.apiVersion, manifest.kind);
    if (!at) continue;
    const pod = asMap(at.reduce<unknown>((value, part) => asMap(value)[part as string], manifest));
    for (const list of ['initContainers', 'containers']) {
      for (const [index, container] of asList(pod[list]).entries()) {
        checkImage(document, [...at, list, index, 'image'], asMap(container).image);
      }
    }
  }
  if (Array.isArray(section.manifests)) {
    const named = new Set<unknown>(section.manifests);
    for (const file of Object.keys(files)) {
      if (!/^manifests\/.+\.ya?ml$/i.test(file) || named.has(file)) continue;
      warnings.push(
        source.faultAtKey(
          ['kubernetes', 'manifests'],
          `${file} is not applied, as it is not listed here`,
          'list it, or leave "manifests" out: all of manifests/ is applied then',
        ),
      );
    }
  }
  return warnings.slice(0, maxWarnings);

  function checkBuilder(): void {
    if (section.builder === undefined || section.builder === false) return;
    const at = ['kubernetes', 'builder'];
    const builder = asMap(section.builder);
    checkImage(source, [...at, 'image'], builder.image);
    if (builder.rootless !== false && section.podSecurity !== 'privileged')
      warnings.push(
        source.faultAtKey(
          at,
          'a rootless builder makes user namespaces, and whether a pod may is left to the nodes: podSecurity: baseline lets no pod ask for it',
          'it runs on nodes without AppArmor and without seccompDefault; for others write podSecurity: privileged',
        ),
      );
    if (
      section.egress === 'namespace' &&
      builder.registrySecret === undefined &&
      asList(builder.insecureRegistries).length === 0
    )
      warnings.push(
        source.faultAtKey(
          at,
          'the builder reaches no registry, since egress: namespace keeps it within',
          'name registries in builder.insecureRegistries or by builder.registrySecret, or write egress: all',
        ),
      );
  }

  function checkImage(of: Source, path: Path, image: unknown): void {
    if (typeof image !== 'string' || image.includes('${{') || image.includes('@')) return;
    const tag = /:([^:/]*)$/.exec(image)?.[1];
    if (tag !== undefined && tag !== 'latest') return;
    warnings.push(
      of.fault(
        path,
        `the image ${image} ${tag === undefined ? 'has no tag, which means latest' : 'is whatever is latest'}`,
        'with a tag of its own, every start gets the same one',
      ),
    );
  }
}
