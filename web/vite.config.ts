import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

const server = process.env.CDE_DEV_SERVER ?? 'http://127.0.0.1:7080';

/**
 * `vite build` creates web/dist (scripts/build-web.mjs runs it); `vite` serves the dashboard with live reload and
 * proxies to a running server.
 */
export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  plugins: [react()],
  build: {
    target: 'es2022',
    // The Content-Security-Policy allows nothing inline: no data: scripts or styles, no inlined assets.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    proxy: { '/api': { target: server, ws: true, headers: { origin: server } } },
  },
});
