#include "runtime.h"

#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include "failure.h"

namespace {

const char* const kInputs[] = {"input_ids", "attention_mask"};
const char* const kOutput = "logits";

std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return text;
}

}  // namespace

struct Runtime::Handles {
  const OrtApi* api = nullptr;
  std::string version, library, model;
  OrtEnv* env = nullptr;
  OrtSessionOptions* options = nullptr;
  OrtSession* session = nullptr;
  OrtMemoryInfo* memory = nullptr;
  OrtValue* inputs[2] = {nullptr, nullptr};
  OrtValue* output = nullptr;

  void check(OrtStatus* status, Exit kind, const std::string& what) const {
    if (status == nullptr) return;
    const std::string message = one_line(api->GetErrorMessage(status));
    api->ReleaseStatus(status);
    throw Failure(kind, what + ": " + message);
  }

  ~Handles() {
    if (api == nullptr) return;
    api->ReleaseValue(output);
    for (OrtValue* input : inputs) api->ReleaseValue(input);
    api->ReleaseMemoryInfo(memory);
    api->ReleaseSession(session);
    api->ReleaseSessionOptions(options);
    api->ReleaseEnv(env);
  }
};

Runtime::Runtime(const std::string& library) : handles_(std::make_unique<Handles>()) {
  Handles& h = *handles_;
  void* opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) throw Failure(Exit::library, one_line(dlerror()));
  void* symbol = dlsym(opened, "OrtGetApiBase");
  if (symbol == nullptr) throw Failure(Exit::library, library + ": not ONNX Runtime (no OrtGetApiBase)");
  const OrtApiBase* base = reinterpret_cast<const OrtApiBase* (*)()>(symbol)();
  h.library = library;
  h.version = base->GetVersionString();
  h.api = base->GetApi(ORT_API_VERSION);
  if (h.api == nullptr)
    throw Failure(Exit::library, library + ": ONNX Runtime " + h.version + " is older than the header, API " +
                                     std::to_string(ORT_API_VERSION));
  h.check(h.api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "runner", &h.env), Exit::library, library);
}

Runtime::~Runtime() = default;  // the library stays open: its threads may outlive the session by a moment

std::string Runtime::version() const { return handles_->version; }

void Runtime::load(const std::string& model, int threads) {
  Handles& h = *handles_;
  h.model = model;
  h.check(h.api->CreateSessionOptions(&h.options), Exit::model, model);
  h.check(h.api->SetIntraOpNumThreads(h.options, threads), Exit::model, model);
  h.check(h.api->SetInterOpNumThreads(h.options, 1), Exit::model, model);
  h.check(h.api->SetSessionExecutionMode(h.options, ORT_SEQUENTIAL), Exit::model, model);
  h.check(h.api->CreateSession(h.env, model.c_str(), h.options, &h.session), Exit::model, model);
}

void Runtime::bind(Tokens& tokens) {
  Handles& h = *handles_;
  h.check(h.api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &h.memory), Exit::model, h.model);
  const std::int64_t shape[] = {tokens.batch, tokens.length};
  std::vector<std::int64_t>* data[] = {&tokens.ids, &tokens.mask};
  for (int i = 0; i < 2; ++i)
    h.check(h.api->CreateTensorWithDataAsOrtValue(h.memory, data[i]->data(), data[i]->size() * sizeof(std::int64_t), shape,
                                                  2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &h.inputs[i]),
            Exit::model, h.model);
}

void Runtime::run() {
  Handles& h = *handles_;
  h.api->ReleaseValue(h.output);
  h.output = nullptr;
  h.check(h.api->Run(h.session, nullptr, kInputs, h.inputs, 2, &kOutput, 1, &h.output), Exit::inference, h.model);
}

Logits Runtime::logits() const {
  const Handles& h = *handles_;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  h.check(h.api->GetTensorTypeAndShape(h.output, &info), Exit::inference, h.model);
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, void (*)(OrtTensorTypeAndShapeInfo*)> owned(
      info, h.api->ReleaseTensorTypeAndShapeInfo);
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::size_t dimensions = 0, elements = 0;
  h.check(h.api->GetTensorElementType(info, &type), Exit::inference, h.model);
  if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) throw Failure(Exit::inference, h.model + ": logits are not float32");
  h.check(h.api->GetDimensionsCount(info, &dimensions), Exit::inference, h.model);
  h.check(h.api->GetTensorShapeElementCount(info, &elements), Exit::inference, h.model);
  Logits found;
  found.shape.resize(dimensions);
  h.check(h.api->GetDimensions(info, found.shape.data(), dimensions), Exit::inference, h.model);
  void* data = nullptr;
  h.check(h.api->GetTensorMutableData(h.output, &data), Exit::inference, h.model);
  found.values.assign(static_cast<float*>(data), static_cast<float*>(data) + elements);
  return found;
}
