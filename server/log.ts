import pino, { type Logger } from 'pino';
import pretty from 'pino-pretty';

export type { Logger };

/** The server's log: JSON lines, or short lines on a terminal. What may hold a secret is never written. */
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
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    process.stdout.isTTY
      ? pretty({ ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss', sync: true })
      : pino.destination(1),
  );
}
