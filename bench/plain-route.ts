import Fastify from 'fastify';

/** The baseline of bench/lists.ts: a Fastify route that returns fixed bytes. Receives them by IPC and replies with its port. */
process.once('message', async (bodies: Record<string, string>) => {
  const app = Fastify();
  for (const [path, body] of Object.entries(bodies))
    app.get(path, (_request, reply) => reply.type('application/json; charset=utf-8').send(body));
  await app.listen({ host: '127.0.0.1', port: 0 });
  process.send!({ url: `http://127.0.0.1:${(app.server.address() as { port: number }).port}` });
});
process.on('disconnect', () => process.exit(0));
