import { sessionCookie, sessionKeyHeader } from '@cde/api/identity.ts';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import { jsonSchemaTransform } from 'fastify-type-provider-zod';
import { docsPolicy } from '../web.ts';

/** Serves the API's OpenAPI document, and its reference at /api/docs. */
export async function openApi(app: FastifyInstance): Promise<void> {
  const isSecure = app.config.accessUrl.startsWith('https:');
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'cde',
        version: '1',
        description:
          'The control plane of cde. Errors are `{code, message, detail, hint}`; the codes are stable.',
      },
      components: {
        securitySchemes: {
          token: { type: 'http', scheme: 'bearer', description: 'An API token: cde token create' },
          session: {
            type: 'apiKey',
            in: 'cookie',
            name: isSecure ? `__Host-${sessionCookie}` : sessionCookie,
          },
          sessionKey: { type: 'apiKey', in: 'header', name: sessionKeyHeader },
        },
      },
      security: [{ token: [] }, { session: [], sessionKey: [] }],
    },
    transform: jsonSchemaTransform,
  });
  await app.register(swaggerUi, {
    routePrefix: '/api/docs',
    staticCSP: docsPolicy,
    uiConfig: {
      // Otherwise pages that are not on localhost send the document's URL to a validator on the internet.
      validatorUrl: null,
      // Runs in the browser: "Try it out" sends the session key, as the dashboard does.
      requestInterceptor: (request) => {
        const { localStorage } = globalThis as unknown as {
          localStorage: { getItem(name: string): string | null };
        };
        const key = localStorage.getItem('cde-session-key');
        const headers = request.headers as Record<string, string>;
        if (key) headers['x-cde-session-key'] = key;
        return request;
      },
    },
  });
  app.get('/api/v1/openapi.json', { schema: { hide: true } }, async () => app.swagger());
}
