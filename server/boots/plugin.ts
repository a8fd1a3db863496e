import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { agentProgramPath, bootAgent } from '@cde/api/agent.ts';
import { Problem } from '@cde/api/problem.ts';
import fp from 'fastify-plugin';
import { serveAs } from '../http/serve.ts';
import { agentBundle } from '../providers/agent-program.ts';
import { makeAgentArchive } from '../providers/vm/agent-archive.ts';
import { type Boots, makeBoots } from './boots.ts';

declare module 'fastify' {
  interface FastifyInstance {
    readonly boots: Boots;
  }
}

/** What virtual machines of cloud providers ask the server while they boot: the agent's token, and its program. */
export const bootsPlugin = fp(
  async (app) => {
    const boots = makeBoots(app.database, app.keys.agentToken);
    const archive = makeAgentArchive(
      { folder: agentBundle, node: process.execPath },
      join(app.config.dataDir, 'cache'),
    );
    app.decorate('boots', boots);

    serveAs(app, bootAgent, async ({ body }) => ({
      token: await boots.exchange(body.build, body.secret),
      version: await archive.version(),
    }));

    app.route<{ Params: { version: string } }>({
      method: 'GET',
      url: agentProgramPath,
      schema: { hide: true },
      onRequest: async (request) => {
        request.actor = await app.auth.authenticate(request.headers, {
          method: request.method,
          ip: request.ip,
        });
        app.auth.authorize(request.actor, 'agent');
      },
      handler: async ({ params }, reply) => {
        // Another replica can have another version while the server is updated.
        if (params.version !== (await archive.version()))
          throw new Problem('agent-version-not-found', 'This server has another version of the agent.', {
            hint: 'Ask for the boot again.',
          });
        const path = await archive.file();
        return reply
          .type('application/gzip')
          .header('content-length', (await stat(path)).size)
          .send(createReadStream(path));
      },
    });
  },
  { name: 'boots', dependencies: ['database', 'identity', 'http'] },
);
