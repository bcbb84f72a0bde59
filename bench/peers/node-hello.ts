// A bare node:http server that always says the same: node node-hello.ts PORT

import { createServer } from 'node:http'
import { SMALL_BYTES, jsonOf } from '../origin.ts'

const body = jsonOf(SMALL_BYTES)
createServer((_request, response) => {
  response.setHeader('Content-Type', 'application/json')
  response.setHeader('Content-Length', body.length)
  response.end(body)
}).listen(Number(process.argv[2]), '127.0.0.1')
