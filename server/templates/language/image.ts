/**
 * `registry:5000/team/image:tag@sha256:…`, each part but the name optional. What stands first is a registry if it
 * has a dot or a port, as Docker reads it.
 */
export const imageReference =
  /^(?:(?:localhost|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+)(?::\d{1,5})?\/|[a-zA-Z0-9-]+:\d{1,5}\/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$/;
