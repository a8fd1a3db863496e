import { createServer, type Server } from 'node:http';

/** Health for the kubelet and metrics for Prometheus, without authentication: nothing can be changed here. */
export async function serve(
  { host, port }: { host: string; port: number },
  answers: { healthy(): boolean; ready(): boolean; metrics(): Promise<string> },
): Promise<Server> {
  const server = createServer((request, response) => {
    const say = (status: number, text: string) =>
      response
        .writeHead(status, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' })
        .end(`${text}\n`);
    const path = request.url?.split('?')[0];
    if (request.method !== 'GET' && request.method !== 'HEAD') say(405, 'Only GET is allowed.');
    else if (path === '/healthz')
      answers.healthy() ? say(200, 'ok') : say(503, 'The kernel has not been checked for too long.');
    else if (path === '/readyz')
      answers.ready() ? say(200, 'ok') : say(503, 'The node has not been updated yet.');
    else if (path === '/metrics')
      answers.metrics().then(
        (text) => say(200, text),
        () => say(500, 'There are no metrics.'),
      );
    else say(404, 'Try /healthz, /readyz or /metrics.');
  });
  server.requestTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host || undefined, resolve);
  });
  return server;
}
