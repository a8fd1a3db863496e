import { execFile } from 'node:child_process';
import { basename, dirname, resolve } from 'node:path';
import { promisify } from 'node:util';
import { Failure } from '../failure/failure.ts';

const run = promisify(execFile);

export interface ImageBuild {
  /** A folder, or a URL that the builder fetches by itself. */
  context: string;
  images: string[];
  file: string | undefined;
  buildArgs: string[];
  target: string | undefined;
  platforms: string[];
  secrets: string[];
  push: boolean;
  cache: boolean;
  /** The file for the build result, as JSON. */
  metadataFile: string;
  /** Plain lines, also on a terminal. */
  plain: boolean;
}

/** A BuildKit client: its name for people, and its command line. */
export interface BuildTool {
  name: string;
  program: string;
  args(build: ImageBuild, env: NodeJS.ProcessEnv): string[];
}

const buildx = (program: string, ...before: string[]): BuildTool => ({
  name: [program, ...before].join(' '),
  program,
  args: (build) => [...before, ...buildxArgs(build)],
});

/** Tried in this order by asking for the version, because `docker` without the plugin does not work. */
const tools: readonly (readonly [BuildTool, string])[] = [
  [buildx('docker', 'buildx'), 'version'],
  [buildx('docker-buildx'), 'version'],
  [buildx('buildx'), 'version'],
  [{ name: 'buildctl', program: 'buildctl', args: buildctlArgs }, '--version'],
];

/** The first working tool on this machine; throws `build-tool-missing`. */
export async function findBuildTool(env: NodeJS.ProcessEnv): Promise<BuildTool> {
  for (const [tool, version] of tools) {
    const words = tool.name.split(' ').slice(1);
    const found = await run(tool.program, [...words, version], { env }).then(
      () => true,
      () => false,
    );
    if (found) return tool;
  }
  throw new Failure('build-tool-missing', 'Neither docker buildx nor buildctl is on the PATH.', {
    detail: 'One of them sends the context to the builder. No Docker daemon is needed.',
    hint: "Install Docker's buildx (https://github.com/docker/buildx/releases) or BuildKit's buildctl (https://github.com/moby/buildkit/releases).",
  });
}

const isUrl = (context: string) => /^(https?|git|ssh):\/\/|^git@|^github\.com\//.test(context);

/** The arguments of `buildx`. */
export function buildxArgs(build: ImageBuild): string[] {
  return [
    'build',
    ...build.images.flatMap((image) => ['--tag', image]),
    ...(build.file === undefined ? [] : ['--file', build.file]),
    ...build.buildArgs.flatMap((arg) => ['--build-arg', arg]),
    ...(build.target === undefined ? [] : ['--target', build.target]),
    ...(build.platforms.length > 0 ? ['--platform', build.platforms.join(',')] : []),
    ...build.secrets.flatMap((secret) => ['--secret', secret]),
    ...(build.cache ? [] : ['--no-cache']),
    ...(build.push ? ['--push'] : []),
    // Makes the image independent of the tool.
    '--provenance=false',
    '--progress',
    build.plain ? 'plain' : 'auto',
    '--metadata-file',
    build.metadataFile,
    build.context,
  ];
}

/** The arguments of `buildctl`. `env` has the values of build arguments that are given by name only. */
export function buildctlArgs(build: ImageBuild, env: NodeJS.ProcessEnv): string[] {
  const remote = isUrl(build.context);
  const file = build.file ?? (remote ? undefined : resolve(build.context, 'Dockerfile'));
  const args = build.buildArgs.flatMap((arg) => {
    if (arg.includes('=')) return [arg];
    const value = env[arg];
    return value === undefined ? [] : [`${arg}=${value}`];
  });
  return [
    'build',
    '--frontend',
    'dockerfile.v0',
    ...(remote ? ['--opt', `context=${build.context}`] : ['--local', `context=${build.context}`]),
    ...(file === undefined
      ? []
      : remote
        ? ['--opt', `filename=${file}`]
        : ['--local', `dockerfile=${dirname(file)}`, '--opt', `filename=${basename(file)}`]),
    ...args.flatMap((arg) => ['--opt', `build-arg:${arg}`]),
    ...(build.target === undefined ? [] : ['--opt', `target=${build.target}`]),
    ...(build.platforms.length > 0 ? ['--opt', `platform=${build.platforms.join(',')}`] : []),
    ...build.secrets.flatMap((secret) => ['--secret', secret]),
    ...(build.cache ? [] : ['--no-cache']),
    // The names are a single CSV field.
    ...(build.push ? ['--output', `type=image,"name=${build.images.join(',')}",push=true`] : []),
    '--progress',
    build.plain ? 'plain' : 'auto',
    '--metadata-file',
    build.metadataFile,
  ];
}

export { isUrl as isRemoteContext };
