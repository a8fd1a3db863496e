import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { credentialsFor, pullFailure, registryOf } from './images.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cde-images-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test.each([
  ['debian', 'docker.io'],
  ['library/debian:12', 'docker.io'],
  ['ghcr.io/example/dev', 'ghcr.io'],
  ['localhost/dev:1', 'localhost'],
  ['registry:5000/dev@sha256:0123', 'registry:5000'],
])('the registry of %s is %s', (image, registry) => {
  expect(registryOf(image)).toBe(registry);
});

test('credentials are those of the registry of the image', () => {
  const file = join(folder, 'config.json');
  const auth = (text: string) => ({ auth: Buffer.from(text).toString('base64') });
  const auths = {
    'https://index.docker.io/v1/': auth('hub:one'),
    'ghcr.io': auth('ada:a:b'),
    'empty.example.com': {},
  };
  writeFileSync(file, JSON.stringify({ auths }));
  expect(credentialsFor('debian:12', file)).toMatchObject({ username: 'hub', password: 'one' });
  expect(credentialsFor('ghcr.io/example/dev', file)).toMatchObject({ username: 'ada', password: 'a:b' });
  expect(credentialsFor('empty.example.com/dev', file)).toBeNull();
  expect(credentialsFor('other.example.com/dev', file)).toBeNull();
  expect(credentialsFor('debian:12', join(folder, 'none.json'))).toBeNull();
  writeFileSync(file, '{');
  expect(() => credentialsFor('debian:12', file)).toThrow(/not JSON/);
});

// As engines and registries have said it.
test.each([
  ['pull access denied for dev, repository does not exist or may require docker login', 'image-no-access'],
  ['manifest for debian:99 not found: manifest unknown: manifest unknown', 'image-not-found'],
  ['toomanyrequests: You have reached your pull rate limit.', 'image-rate-limited'],
  [
    'Get "https://r.example.com/v2/": dial tcp: lookup r.example.com: no such host',
    'image-registry-unreachable',
  ],
  [
    'Get "https://r.example.com/v2/": x509: certificate signed by unknown authority',
    'image-registry-untrusted',
  ],
  ['failed to register layer: write /usr/lib/x: no space left on device', 'image-no-disk'],
  ['no matching manifest for linux/arm64/v8 in the manifest list entries', 'image-platform'],
  ['something else', 'image-not-pulled'],
])('%s: %s', (said, code) => {
  expect(pullFailure('dev:1', said).error).toMatchObject({ code, detail: said });
});
