// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written
import type { Fault } from '@cde/api/templates.ts';
import { podAt } from './manifest-rules.ts';
import type { ManifestSource } from './manifests.ts';
import type { Path, Source } from './source.ts';
import { asList, asMap } from './tree.ts';

const mostWarnings = 20;

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
  if (section.builder !== undefined && section.builder !== false)
    warnings.push(
      source.faultAtKey(
        ['kubernetes', 'builder'],
        'no builder is made yet: this version of cde keeps the setting and does nothing with it',
        'leave it out until `cde build` exists',
      ),
    );
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
  return warnings.slice(0, mostWarnings);

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
