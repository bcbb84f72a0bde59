// Why a request was not a hit, as a closed set: the `detail` of Cache-Status, the log's cache_reason, the metric's
// label and the words of `explain`. A user never has to ask why it missed. Each is a token of RFC 9651.

/** What each reason means, for people. */
export const REASONS = {
  // the lookup
  absent: 'nothing is stored under this key',
  expired: 'what is stored is not fresh any more',
  vary: 'what is stored was selected by other request fields',
  incomplete: 'only parts are stored, and not all that was asked for',
  refreshing: 'what is stored is stale and answers while it is being refreshed',
  'backing-off': 'what is stored is stale and answers, because the upstream has just failed to refresh it',
  'not-shared': 'another request for it was waited for, but its answer was not for sharing',
  sick: 'another request for it was waited for, but the upstream answered it with an error',
  'config-changed': 'what is stored came from this route before its upstream or rewriting changed',
  limited: 'the request is over a limit, and what is stored answers in place of the refusal (`onLimited: stale`)',
  'client-no-cache': 'the client wants the upstream asked (`clientControl: honor`)',
  'client-max-age': 'what is stored is older than the client wants it (`clientControl: honor`)',
  'client-min-fresh': 'what is stored stays fresh for less time than the client wants (`clientControl: honor`)',
  'client-max-stale': 'what is stored is stale, and the client takes it so (`clientControl: honor`)',
  // requests that are not looked up
  method: 'this method is not one of those that the cache of the route answers (`methods`)',
  precondition: 'the request changes or asks only on a condition, which is for the origin to judge (RFC 9110 §13.1)',
  'body-too-large': 'the request body is too large to be part of a key: more than 256 KiB',
  'body-encoded': 'the request body is compressed, and only plain JSON can be part of the key',
  'body-not-json': 'the request body is not JSON, by its Content-Type or by its text; `key: {body: raw}` takes any',
  'unsafe-json':
    'the request body is JSON that readers may take for different values: repeated names, numbers beyond a double, lone surrogates, deep nesting',
  'unknown-field': 'the request body has a field that `key.body` does not list, so it may ask for another answer',
  'bypass-if': 'a condition under `bypassIf` holds of the request body, or cannot be told from it',
  mutation: 'the request is a GraphQL mutation, or has one in its document, and that is for the upstream alone',
  subscription: 'the request is a GraphQL subscription, or has one in its document',
  'graphql-batch': 'the request is a batch of GraphQL operations',
  'unclear-graphql':
    'it is not beyond doubt which GraphQL operation is asked for: its document, the name of the operation, or members that are not known',
  'unknown-document':
    'the request names a GraphQL document by its hash, and this instance has not seen the document yet, so it may be a mutation; a GET changes nothing and is looked up',
  'body-budget': 'too many request bodies are held at this moment',
  'no-user': 'answers are kept for each user alone (`scope: user`), and the request carries nothing that says who asks',
  connection:
    'the request takes header fields off by naming them in Connection, so its answer may not be what others get',
  authorization:
    'the request carries Authorization or an API key, and the answer is not marked as shareable (RFC 9111 §3.5); `scope: public` shares it all the same',
  cookie:
    'the request carries Cookie, and the answer has no freshness of its own; `scope: public` shares it all the same',
  'client-no-store': 'the client wants nothing of it stored (`clientControl: honor`)',
  disguised:
    'the request carries credentials, and the answer is a page where its path promises an image, a script or a style sheet',
  // answers that are not stored
  'no-store': 'the origin forbids storing',
  private: 'the origin says that the answer is for one user',
  'no-cache': 'the origin wants each use validated, and the answer has no validator',
  'invalid-cache-control': 'Cache-Control cannot be read, which counts as no-store',
  'set-cookie': 'the answer sets a cookie; `storeSetCookie: true` stores it all the same',
  'vary-star':
    'the answer varies by more than the request (Vary: *), or by a field that each request gets from the gateway',
  'event-stream':
    'the answer is a stream of events, which is stored only as an answer to a POST that the cache answers, or where `terminal` says how it ends',
  unterminated:
    'the stream has not ended by its last event (`terminal`, or the one of its format), has none, or ended within one',
  status:
    'answers with this status are not stored without explicit freshness; to a POST, a 200 alone, and what `ttl` names by status',
  partial:
    'a partial answer is stored only where a part was asked for, and what came is one part, as long as it says, with a strong validator',
  range: 'a part was asked for, and what came is neither a part nor the whole',
  'no-freshness': 'neither the origin nor the route gives a freshness lifetime',
  'not-fresh': 'the answer was stale when it came',
  'too-large': 'the answer is larger than maxObject',
  'no-length':
    'the end of the answer cannot be proved: neither Content-Length nor chunks; `framing: lenient` of the upstream takes it on trust',
  'error-answer':
    'the answer says in its body, or in one of its events, that there was an error; `storeUnfinished: true` stores it all the same',
  unfinished:
    'the answer says in its body that it was cut short or filtered; `storeUnfinished: true` stores it all the same',
  'answer-not-json': 'the answer is not JSON, by its Content-Type or by its text, and has to be to be stored',
  unread:
    'the answer is longer than 4 MiB, an event of it longer than 1 MiB, or it is in a content coding that is not known or a stream in any, so it cannot be looked into',
  'store-if': 'a condition under `storeIf` does not hold of the answer, or cannot be told from it',
  'reject-if': 'a condition under `rejectIf` holds of the answer, or cannot be told from it',
  'fill-budget': 'too many bytes are being stored at this moment',
  'heap-full': 'the heap of the gateway fills up, so nothing new is stored (`overload.storing`)',
  tags: 'the tags of the answer are more or longer than can be kept, so a purge could pass over it',
  purged: 'what it is tagged with was purged while it was being fetched',
  failed: 'the fetch failed',
} as const

export type Reason = keyof typeof REASONS
