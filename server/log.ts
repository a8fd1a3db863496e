import pino, { type Logger } from 'pino';
import pretty from 'pino-pretty';

export type { Logger };

/** Keys that pino writes itself. Parsers disagree on JSON lines with duplicate keys. */
const reserved = new Set(['level', 'time', 'msg']);

function withoutReservedKeys(values: Record<string, unknown>): Record<string, unknown> {
  if (!Object.keys(values).some((key) => reserved.has(key))) return values;
  return Object.fromEntries(
    Object.entries(values).map(([key, value]) => [reserved.has(key) ? `${key}Value` : key, value]),
  );
}

/** The server's log: JSON lines, or short lines on a terminal. Fields that can contain secrets are redacted. */
export function makeLog(level: string): Logger {
  return pino(
    {
      level,
      redact: [
        'req.headers.authorization',
        'req.headers.cookie',
        'req.headers["x-cde-session-key"]',
        'req.headers["sec-websocket-protocol"]',
        '*.token',
        '*.password',
        '*.code',
        '*.sessionKey',
        '*.loginKey',
      ],
      base: null,
      formatters: { log: withoutReservedKeys },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    process.stdout.isTTY
      ? pretty({ ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss', sync: true })
      : pino.destination(1),
  );
}

/** An app's logger, which `makeFastify` was given. Fastify's own type has only part of pino's methods. */
export const loggerOf = (app: { log: unknown }): Logger => app.log as Logger;
