import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildctlArgs, buildxArgs, findBuildTool, type ImageBuild } from './build-tools.ts';
import { withAuths } from './builder-env.ts';

const build: ImageBuild = {
  context: 'app',
  images: ['r:5000/a:1', 'r:5000/a:2'],
  file: 'docker/Other',
  buildArgs: ['A=1', 'B', 'NONE'],
  target: 'test',
  platforms: ['linux/amd64', 'linux/arm64'],
  secrets: ['id=npm,src=/s'],
  push: true,
  cache: false,
  metadataFile: '/m.json',
  plain: false,
};
const least: ImageBuild = {
  ...build,
  images: [],
  file: undefined,
  buildArgs: [],
  target: undefined,
  platforms: [],
  secrets: [],
  push: false,
  cache: true,
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cde-tools-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('buildx gets all options', () => {
  expect(buildxArgs(build).join(' ')).toBe(
    'build --tag r:5000/a:1 --tag r:5000/a:2 --file docker/Other --build-arg A=1 --build-arg B --build-arg NONE ' +
      '--target test --platform linux/amd64,linux/arm64 --secret id=npm,src=/s --no-cache --push --provenance=false ' +
      '--progress auto --metadata-file /m.json app',
  );
  expect(buildxArgs(least).join(' ')).toBe(
    'build --provenance=false --progress auto --metadata-file /m.json app',
  );
});

test('buildctl gets the same options in its syntax; a build argument without a value takes it from the environment', () => {
  expect(buildctlArgs(build, { B: '2' }).join(' ')).toBe(
    'build --frontend dockerfile.v0 --local context=app --local dockerfile=docker --opt filename=Other ' +
      '--opt build-arg:A=1 --opt build-arg:B=2 --opt target=test --opt platform=linux/amd64,linux/arm64 ' +
      '--secret id=npm,src=/s --no-cache --output type=image,"name=r:5000/a:1,r:5000/a:2",push=true ' +
      '--progress auto --metadata-file /m.json',
  );
  const words = buildctlArgs(least, {});
  expect(words).toContain('filename=Dockerfile');
  expect(words).not.toContain('--output');
});

test('a repository is fetched by the builder itself', () => {
  const words = buildctlArgs({ ...least, context: 'https://git.example.com/app.git' }, {});
  expect(words).toContain('context=https://git.example.com/app.git');
  expect(words).not.toContain('--local');
});

test('the first working tool is used; docker without buildx does not work', async () => {
  const script = async (name: string, text: string) => {
    await writeFile(join(folder, name), `#!/bin/sh\n${text}\n`);
    await chmod(join(folder, name), 0o755);
  };
  const env = { PATH: [folder].join(delimiter) };
  await expect(findBuildTool(env)).rejects.toMatchObject({ code: 'build-tool-missing' });
  await script('docker', 'exit 1');
  await script('buildctl', 'exit 0');
  expect((await findBuildTool(env)).name).toBe('buildctl');
  await script('docker-buildx', 'exit 0');
  expect((await findBuildTool(env)).name).toBe('docker-buildx');
  await script('docker', '[ "$1 $2" = "buildx version" ]');
  expect((await findBuildTool(env)).name).toBe('docker buildx');
});

test('credentials of the template are added to the user’s own, which take precedence', () => {
  const brought = { 'r.example.com': { auth: 'theirs' }, 'x.example.com': { auth: 'x' } };
  expect(withAuths({}, brought)).toEqual({ auths: brought });
  expect(withAuths({ auths: { 'r.example.com': {} }, experimental: true }, brought)).toEqual({
    auths: { 'r.example.com': {}, 'x.example.com': { auth: 'x' } },
    experimental: true,
  });
  // A credential store does not have them.
  expect(withAuths({ credsStore: 'desktop', credHelpers: { 'r.example.com': 'gcr' } }, brought)).toEqual({
    credsStore: 'desktop',
    auths: { 'x.example.com': { auth: 'x' } },
    credHelpers: { 'r.example.com': 'gcr', 'x.example.com': '' },
  });
});
