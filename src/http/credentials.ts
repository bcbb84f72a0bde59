// The request fields that say who asks, beside Cookie.

/** Authorization (RFC 9110 §11.6.2), and the fields of their own in which APIs take keys and tokens. Lower case, 6 to 20
 *  characters. */
export const AUTHORIZING_FIELDS: ReadonlySet<string> = new Set([
  'authorization',
  'api-key',
  'apikey',
  'x-api-key',
  'x-apikey',
  'x-auth-token',
  'x-access-token',
  'x-goog-api-key',
  'x-amz-security-token',
])
