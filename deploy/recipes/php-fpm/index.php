<?php
header("Content-Type: text/plain");
if ($_SERVER["REQUEST_URI"] === "/slow") {
    // So that you can see it drain. A signal ends sleep early.
    for ($end = microtime(true) + 2; microtime(true) < $end; usleep(10000));
}
echo getenv("VERSION"), "\n";
