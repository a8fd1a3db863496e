import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Builder } from '@cde/api/clusters.ts';
import { bytes } from '@cde/api/sizes.ts';
import type { Context } from '../command/context.ts';
import { line, note, type Result, result } from '../command/result.ts';
import { getBuilder } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure, usage } from '../failure/failure.ts';
import { duration } from '../output/times.ts';
import { runForeground } from '../processes/foreground.ts';
import { makeOpening } from '../ssh/opening.ts';
import { pathRef } from '../workspaces/reference.ts';
import { findBuildTool, isRemoteContext } from './build-tools.ts';
import { builderEnvironment } from './builder-env.ts';
import { openBuilderTunnel } from './builder-tunnel.ts';
import { chooseWorkspace } from './choose-workspace.ts';

/** Builds an image in the workspace's builder. Only the context is uploaded, and nothing is downloaded. */
export async function build(
  context: Context,
  input: {
    context: string | undefined;
    tag: string[];
    push: boolean;
    file: string | undefined;
    buildArg: string[];
    target: string | undefined;
    platform: string[];
    secret: string[];
    cache: boolean;
    workspace: string | undefined;
    start: boolean;
  },
): Promise<Result | number> {
  const { out } = context;
  const folder = input.context ?? '.';
  await check(folder, input);
  const tool = await findBuildTool(context.env);
  const workspace = await chooseWorkspace(context, input.workspace);
  const builder = await builderOf(context, workspace, input.start);

  const began = performance.now();
  const place = await mkdtemp(join(tmpdir(), 'cde-build-'));
  const tunnel = await openBuilderTunnel(context, { workspace, builder, folder: place, start: input.start });
  try {
    await tunnel.ready();
    const env = {
      // At the end buildctl sends its trace to the builder, and fails if that is slow although the image was built and
      // pushed.
      OTEL_TRACES_SAMPLER: 'always_off',
      ...context.env,
      ...(await builderEnvironment(context, { workspace, builder, url: tunnel.url, folder: place })),
    };
    const metadataFile = join(place, 'metadata.json');
    const args = tool.args(
      {
        context: folder,
        images: input.tag,
        file: input.file,
        buildArgs: input.buildArg,
        target: input.target,
        platforms: input.platform,
        secrets: input.secret,
        push: input.push,
        cache: input.cache,
        metadataFile,
        plain: out.json,
      },
      context.env,
    );
    const { code, said, interrupted } = await runForeground(context, tool.program, args, {
      env,
      quiet: out.json,
    });
    if (interrupted) return exitCodes.interrupted;
    if (code !== 0)
      throw new Failure(
        'image-build-failed',
        `The image was not ${input.push ? 'built and pushed' : 'built'}.`,
        {
          exitCode: exitCodes.buildFailed,
          detail: out.json ? said.trim() : `See the output of ${tool.name} above.`,
        },
      );
    const digest = input.push ? await digestIn(metadataFile) : null;
    const traffic = tunnel.traffic();
    const took = performance.now() - began;
    return result(
      {
        workspace,
        images: input.tag,
        pushed: input.push,
        digest,
        tool: tool.name,
        ...traffic,
        durationMs: Math.round(took),
      },
      () => [
        ...(input.push ? input.tag : []).map((image) => line(`pushed ${image}${digest ? `@${digest}` : ''}`)),
        !input.push &&
          note(
            `Built; the image stays in the cache of the builder of ${workspace}. --push sends it to its registry.`,
          ),
        note(
          `${duration(took)}; ${bytes(traffic.sentBytes)} went up, ${bytes(traffic.receivedBytes)} came back.`,
        ),
      ],
    );
  } finally {
    tunnel.close();
    await rm(place, { recursive: true, force: true });
  }
}

async function builderOf(context: Context, workspace: string, start: boolean): Promise<Builder> {
  const client = await context.client();
  const look = () => client.call(getBuilder, { params: { workspace: pathRef(workspace) } });
  try {
    return await look();
  } catch (error) {
    if (toFailure(error).code !== 'no-kubernetes-namespace') throw error;
    // It was never started or is starting for the first time, which creates the namespace.
    await makeOpening(context, workspace, start);
    return look();
  }
}

async function check(folder: string, input: { tag: string[]; push: boolean }): Promise<void> {
  if (input.push && input.tag.length === 0)
    throw usage('--push needs to know where to.', 'Name the image: -t registry.example.com/team/app:1');
  const unfit = input.tag.find((tag) => /["\s,]/.test(tag));
  if (unfit !== undefined) throw usage(`${JSON.stringify(unfit)} is not the name of an image.`);
  if (isRemoteContext(folder)) return;
  const found = await stat(folder).catch(() => null);
  if (!found?.isDirectory())
    throw usage(
      `${JSON.stringify(folder)} is not a folder.`,
      'CONTEXT is the folder that the Dockerfile copies from, or the URL of a repository.',
    );
}

async function digestIn(file: string): Promise<string | null> {
  try {
    const metadata = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
    const digest = metadata['containerimage.digest'];
    return typeof digest === 'string' ? digest : null;
  } catch {
    // Some tools write none although the build succeeded.
    return null;
  }
}
