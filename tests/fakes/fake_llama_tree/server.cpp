// A llama-server as far as verification goes: says its version and options, and answers every chat with the content of its
// model file (or FAKE_ANSWER).
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int fake_build_number();

#ifdef FAKE_COMPILE_FAULT
int broken() { return undeclared_thing; }
#endif
#ifdef FAKE_LINK_FAULT
extern "C" int nowhere_defined();
#endif

static const char * HELP =
    "----- common params -----\n\n"
    "-h,    --help, --usage                  print usage and exit\n"
    "--version                               show version and build info\n"
    "-m,    --model FNAME                    model path to load\n"
    "-a,    --alias STRING                   model name aliases\n"
    "-np,   --parallel N                     number of slots\n"
#ifdef FAKE_TCP
    "--host HOST                             ip address to listen\n"
#else
    "--host HOST                             ip address to listen, or UNIX socket paths ending in .sock\n"
#endif
    "--port PORT                             port to listen (default: 8080)\n"
    "--list-devices                          print list of available devices and exit\n"
    "--mlock                                 DEPRECATED: the argument has been removed\n";

static int listen_on(const std::string & host, int port) {
    if (host.size() > 5 && host.compare(host.size() - 5, 5, ".sock") == 0) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, host.c_str(), sizeof(address.sun_path) - 1);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        return bind(fd, (sockaddr *) &address, sizeof(address)) == 0 && listen(fd, 16) == 0 ? fd : -1;
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    inet_pton(AF_INET, host.c_str(), &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return bind(fd, (sockaddr *) &address, sizeof(address)) == 0 && listen(fd, 16) == 0 ? fd : -1;
}

static std::string read_request(int fd) {
    std::string all;
    char buffer[4096];
    while (true) {
        ssize_t got = read(fd, buffer, sizeof(buffer));
        if (got <= 0) {
            return all;
        }
        all.append(buffer, got);
        size_t end = all.find("\r\n\r\n");
        if (end == std::string::npos) {
            continue;
        }
        size_t at = all.find("Content-Length: ");
        size_t length = at != std::string::npos && at < end ? std::atoi(all.c_str() + at + 16) : 0;
        if (all.size() >= end + 4 + length) {
            return all;
        }
    }
}

int main(int argc, char ** argv) {
    std::string model, host = "127.0.0.1";
    int port = 8080;
#ifdef FAKE_LINK_FAULT
    return nowhere_defined();
#endif
    for (int i = 1; i < argc; i++) {
        std::string word = argv[i];
        if (word == "--version") {
#ifdef FAKE_TCP
            std::fprintf(stderr, "version: %d (%s)\nbuilt with a fake\n", fake_build_number(), BUILD_COMMIT);
#else
            std::fprintf(stderr, "version: 0.0.1-dev (build %d, commit %s)\nbuilt with a fake\n", fake_build_number(), BUILD_COMMIT);
#endif
            return 0;
        }
        if (word == "--help") {
            std::printf("%s", HELP);
            return 0;
        }
        if (word == "--list-devices") {
            std::printf("Available devices:\n  (none)\n");
            return 0;
        }
        if (i + 1 >= argc || !std::strstr(HELP, word.c_str())) {
            std::fprintf(stderr, "error: invalid argument: %s\n", argv[i]);
            return 1;
        }
        std::string value = argv[++i];
        if (word == "--model") model = value;
        if (word == "--host") host = value;
        if (word == "--port") port = std::atoi(value.c_str());
    }
    for (char ** name = environ; *name; name++) {
        if (std::strncmp(*name, "LLAMA_ARG_", 10) == 0 || std::strncmp(*name, "LLAMA_API_KEY=", 14) == 0) {
            std::fprintf(stderr, "the environment was not scrubbed: %s\n", *name);
            return 1;
        }
    }
    std::ifstream file(model);
    std::string answer((std::istreambuf_iterator<char>(file)), {});
    if (std::strlen(FAKE_ANSWER)) {
        answer = FAKE_ANSWER;
    }
    int fd = listen_on(host, port);
    if (fd < 0) {
        return 1;
    }
    while (true) {
        int client = accept(fd, nullptr, nullptr);
        std::string body = "{\"status\":\"ok\"}";
        if (read_request(client).rfind("POST ", 0) == 0) {
            body = "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"" + answer + "\"}}]}";
        }
        std::string reply = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " +
                            std::to_string(body.size()) + "\r\n\r\n" + body;
        if (write(client, reply.data(), reply.size()) < 0) {
            std::perror("write");
        }
        close(client);
    }
}
