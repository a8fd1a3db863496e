import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { BuilderAddress } from '@cde/api/clusters.ts';
import type { Context } from '../command/context.ts';
import { createBuilderCredentials } from '../connection/endpoints.ts';
import { Failure } from '../failure/failure.ts';
import { pathRef } from '../workspaces/reference.ts';

/** Our builder's name in buildx. */
const builderName = 'cde';

interface DockerConfig {
  auths?: Record<string, Record<string, unknown>>;
  credHelpers?: Record<string, string>;
  [key: string]: unknown;
}

/**
 * The environment with which buildctl and buildx find the builder at `url` and the template's credentials. Everything
 * is in `folder`; the user's own builders and logins are not changed.
 */
export async function builderEnvironment(
  context: Context,
  input: { workspace: string; builder: BuilderAddress; url: string; folder: string },
): Promise<Record<string, string>> {
  const buildx = join(input.folder, 'buildx');
  await mkdir(join(buildx, 'instances'), { recursive: true });
  // As `buildx create --driver remote` writes it, without buildx.
  await writeFile(
    join(buildx, 'instances', builderName),
    JSON.stringify({
      Name: builderName,
      Driver: 'remote',
      Nodes: [
        {
          Name: `${builderName}0`,
          Endpoint: input.url,
          Platforms: null,
          DriverOpts: null,
          Flags: null,
          Files: null,
        },
      ],
      Dynamic: false,
    }),
  );
  return {
    BUILDKIT_HOST: input.url,
    BUILDX_CONFIG: buildx,
    BUILDX_BUILDER: builderName,
    ...(input.builder.registrySecret && {
      DOCKER_CONFIG: await dockerFolder(context, input.workspace, input.folder),
    }),
  };
}

/** A folder like ~/.docker with the template's credentials in addition to the user's own. */
async function dockerFolder(context: Context, workspace: string, folder: string): Promise<string> {
  const client = await context.client();
  const { auths } = await client.call(createBuilderCredentials, {
    params: { workspace: pathRef(workspace) },
    body: {},
  });
  const own = context.env.DOCKER_CONFIG || join(context.env.HOME || homedir(), '.docker');
  const made = join(folder, 'docker');
  await mkdir(made, { mode: 0o700 });
  const names = await readdir(own).catch(() => [] as string[]);
  // Docker looks for plugins and contexts next to the configuration.
  for (const name of names)
    if (name !== 'config.json') await symlink(join(own, name), join(made, name)).catch(() => {});
  const file = join(own, 'config.json');
  const text = names.includes('config.json') ? await readFile(file, 'utf8') : '{}';
  let config: DockerConfig;
  try {
    config = JSON.parse(text) as DockerConfig;
  } catch (cause) {
    throw new Failure('docker-config-invalid', `${file} is not a configuration of Docker.`, {
      detail: (cause as Error).message,
      hint: 'Fix the file or move it away.',
      cause,
    });
  }
  await writeFile(join(made, 'config.json'), JSON.stringify(withAuths(config, auths)), { mode: 0o600 });
  return made;
}

/** The user's own login to a registry takes precedence. */
export function withAuths(
  config: DockerConfig,
  auths: Record<string, Record<string, unknown>>,
): DockerConfig {
  const added = Object.entries(auths).filter(
    ([registry]) => !config.auths?.[registry] && !config.credHelpers?.[registry],
  );
  return {
    ...config,
    auths: { ...config.auths, ...Object.fromEntries(added) },
    // With a credential store Docker looks nowhere else, except for registries with an empty helper.
    ...(config.credsStore !== undefined && {
      credHelpers: {
        ...config.credHelpers,
        ...Object.fromEntries(added.map(([registry]) => [registry, ''])),
      },
    }),
  };
}
