import '@xterm/xterm/css/xterm.css';
import { FitAddon } from '@xterm/addon-fit';
import { Terminal as Xterm } from '@xterm/xterm';
import { useEffect, useRef } from 'react';
import { withConstructedSheets } from './document.ts';
import type { TerminalRoute } from './routes.ts';
import { type End, openTerminal, type TerminalSession } from './session.ts';
import { onThemeChange, theme } from './theme.ts';

const scrollbackLines = 10_000;
// Dragging a window edge produces hundreds of sizes, and the shell redraws for each one that it receives.
const resizePauseMs = 60;

interface Props {
  /** The workspace's id, or `owner~name`. */
  workspace: string;
  /** A later session with this name, from any browser, finds the same shell. */
  name: string;
  /** A new number opens a new session. */
  attempt: number;
  screenReader: boolean;
  /** Called with the route of each session. */
  onRoute: (route: TerminalRoute) => void;
  onOpen: () => void;
  /** Called when there is output, so the shell runs. */
  onShown: () => void;
  onEnd: (end: End) => void;
}

/** A terminal that fills its parent. */
export function Terminal({ workspace, name, attempt, screenReader, onRoute, onOpen, onShown, onEnd }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const terminal = useRef<{ xterm: Xterm; session: TerminalSession | null }>(null);
  const handlers = useRef({ onRoute: onRoute, onOpen, onShown, onEnd });
  handlers.current = { onRoute: onRoute, onOpen, onShown, onEnd };
  // After a satellite has failed, this page uses only the server.
  const fellBack = useRef(false);

  useEffect(() => {
    const element = box.current!;
    const xterm = new Xterm({
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue('--mono'),
      fontSize: 13,
      scrollback: scrollbackLines,
      theme: theme(),
      // Programs choose colours without knowing whether the screen is dark or light.
      minimumContrastRatio: 4.5,
      cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches,
      macOptionIsMeta: true,
    });
    const fit = new FitAddon();
    xterm.loadAddon(fit);
    withConstructedSheets(() => xterm.open(element));
    fit.fit();
    const held: { xterm: Xterm; session: TerminalSession | null } = { xterm, session: null };
    terminal.current = held;

    const encoder = new TextEncoder();
    xterm.onData((text) => held.session?.send(encoder.encode(text)));
    xterm.onBinary((text) =>
      held.session?.send(Uint8Array.from(text, (character) => character.charCodeAt(0))),
    );
    let timer: ReturnType<typeof setTimeout>;
    xterm.onResize(({ cols, rows }) => {
      clearTimeout(timer);
      timer = setTimeout(() => held.session?.resize(cols, rows), resizePauseMs);
    });
    const observer = new ResizeObserver(() => fit.fit());
    observer.observe(element);
    const unwatch = onThemeChange(() => {
      xterm.options.theme = theme();
    });
    xterm.focus();
    return () => {
      clearTimeout(timer);
      unwatch();
      observer.disconnect();
      xterm.dispose();
      terminal.current = null;
    };
  }, []);

  useEffect(() => {
    if (terminal.current) terminal.current.xterm.options.screenReaderMode = screenReader;
  }, [screenReader]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: each attempt opens a new session
  useEffect(() => {
    const held = terminal.current;
    if (!held) return;
    const session = openTerminal({
      workspace,
      name,
      size: () => ({ cols: held.xterm.cols, rows: held.xterm.rows }),
      serverOnly: fellBack.current,
      onRoute(route, again) {
        fellBack.current ||= again;
        handlers.current.onRoute(route);
      },
      onOpen: () => {
        // The size may have changed while it opened.
        session.resize(held.xterm.cols, held.xterm.rows);
        handlers.current.onOpen();
      },
      onBytes: (bytes) => {
        held.xterm.write(bytes);
        handlers.current.onShown();
      },
      onEnd: (end) => {
        // Leave full-screen mode, show the cursor, and start a new line.
        held.xterm.write('\x1b[?1049l\x1b[?25h\x1b[0m\r\n');
        handlers.current.onEnd(end);
      },
    });
    held.session = session;
    held.xterm.focus();
    return () => {
      session.close();
      held.session = null;
    };
  }, [workspace, name, attempt]);

  return <div className="terminal-box" ref={box} />;
}
