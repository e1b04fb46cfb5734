"""All that the page says, in both languages."""

from __future__ import annotations

from glmkit.choosing.words import Text

WORDS: dict[str, Text] = {
    # The frame.
    "title": Text("Playground", "体验台"),
    "lead": Text("Fill, write, chat, understand, explain: one GLM, this server.", "填空、写作、对话、理解、解释：一个 GLM，就在这台服务器上。"),
    "other_language": Text("中文", "English"),
    "api": Text("API", "接口"),
    "leave": Text("Log out", "退出"),
    "hint": Text("Ctrl/⌘ + Enter runs the open tab.", "按 Ctrl/⌘ + 回车运行当前标签页。"),
    "settings": Text("Settings", "设置"),
    "settings_note": Text("Named and limited as in the API; empty means the API's default.", "名称与限制同接口；留空即接口默认值。"),
    "control": Text("Control", "控制"),
    "control_note": Text("What a blank may be; all of it is kept, whatever the model. Items are separated by commas.", "空白里可以写什么；无论模型如何都会遵守。多项用逗号分隔。"),
    "examples": Text("Examples", "示例"),
    "result": Text("Result", "结果"),
    "language_zh": Text("Chinese", "中文"),
    "language_en": Text("English", "英文"),
    "stop": Text("Stop", "停止"),
    # Login.
    "login_why": Text("This server asks for an API key.", "此服务器需要 API 密钥。"),
    "login_key": Text("API key", "API 密钥"),
    "login_enter": Text("Enter", "进入"),
    "login_wrong": Text("That is none of this server's keys.", "密钥不正确。"),
    # Fill.
    "fill": Text("Fill", "填空"),
    "fill_lead": Text("Write a text with blanks: [MASK] a few words, [sMASK] a sentence, [gMASK] to the end. Click a filled blank for the likeliest contents.", "写一段带空白的文本：[MASK] 填词，[sMASK] 填句，[gMASK] 续写到底。点击填好的空白可查看最可能的几种填法。"),
    "fill_text": Text("Text with blanks", "带空白的文本"),
    "fill_run": Text("Fill the blanks", "填空"),
    "insert": Text("Insert {mask}", "插入 {mask}"),
    "n_best": Text("n (contents shown on click)", "n（点击空白时给出的填法数）"),
    "n_best_info": Text("1–20, by search", "1–20，按概率搜索"),
    "blank": Text("blank {number}", "空白 {number}"),
    "blank_title": Text("Likeliest contents of blank {number}", "空白 {number} 最可能的填法"),
    "blank_note": Text("The model's probability of the content, together with what was found for the other blanks. Click one to put it in.", "模型给出的概率，已对其余空白找到的各种填法求和；点击即可填入。"),
    "nothing": Text("(nothing)", "（空）"),
    "unfinished": Text("Stopped at max_tokens.", "达到 max_tokens 上限而停止。"),
    "fill_empty": Text("Write a text first, with a blank where the model shall write.", "请先写一段文本，并在要填的地方放一个空白。"),
    # Write.
    "write": Text("Write", "写作"),
    "poem": Text("Poem", "诗词"),
    "poem_lead": Text("Length, tones and rhymes are kept by constraint, whatever the model.", "字数、平仄与押韵由约束保证，与模型大小无关。"),
    "poem_title": Text("Title", "标题"),
    "poem_form": Text("Form", "体裁"),
    "poem_acrostic": Text("Acrostic (one character a line or verse)", "藏头（每行或每句一字）"),
    "poem_first": Text("First verse", "首句"),
    "poem_keywords": Text("Keywords, separated by spaces", "关键词（空格分隔）"),
    "poem_rhyme": Text("Rhymes", "声韵"),
    "poem_modern": Text("modern Mandarin", "中华新韵"),
    "poem_pingshui": Text("Tang and Song (Pingshui)", "平水韵"),
    "poem_candidates": Text("candidates", "candidates（候选数）"),
    "poem_candidates_info": Text("1–16 poems are drawn, the likeliest is kept", "采样 1–16 首，保留概率最高的一首"),
    "poem_candidates_wrong": Text("candidates: give a whole number from 1 to 16.", "candidates：请给 1 到 16 的整数。"),
    "poem_run": Text("Write a poem", "作诗"),
    "untitled": Text("Untitled", "无题"),
    "article": Text("Article", "文章"),
    "article_lead": Text("A title, or the beginning of an article; it appears sentence by sentence.", "给一个标题或开头；文章会逐句出现。"),
    "article_text": Text("Title or beginning", "标题或开头"),
    "article_outline": Text("Outline: one heading a line", "提纲：每行一个小标题"),
    "article_most": Text("max_characters", "max_characters（最多字数）"),
    "article_most_info": Text("1–{most}", "1–{most}"),
    "article_least": Text("min_characters", "min_characters（最少字数）"),
    "article_least_info": Text("0–max_characters", "0–max_characters"),
    "article_wrong": Text("max_characters: a whole number from 1 to {most}; min_characters: one from 0 to max_characters.", "max_characters 请给 1 到 {most} 的整数，min_characters 请给 0 到 max_characters 的整数。"),
    "article_run": Text("Write an article", "写文章"),
    "article_empty": Text("Give a title or a beginning first.", "请先给一个标题或开头。"),
    # Chat.
    "chat": Text("Chat", "对话"),
    "chat_lead": Text("The model answers with all that was said before in mind.", "模型会结合前文回答。"),
    "chat_log": Text("Conversation", "对话"),
    "chat_said": Text("Your message", "你的话"),
    "chat_placeholder": Text("Say something; Enter sends it", "说点什么，回车发送"),
    "chat_send": Text("Send", "发送"),
    "chat_clear": Text("Clear", "清空"),
    "chat_system": Text("System message", "系统消息"),
    "chat_empty": Text("Write a message first.", "请先写一句话。"),
    "chat_stopped": Text("Stopped.", "已停止。"),
    # Understand.
    "understand": Text("Understand", "理解"),
    "sentiment": Text("Sentiment", "情感"),
    "sentiment_lead": Text("Is a text positive or negative?", "判断一段文本是正面还是负面。"),
    "topics": Text("Topics", "主题"),
    "topics_lead": Text("What is a text about? With labels of your own no training is needed.", "判断文本的主题；也可以自定标签，无需训练。"),
    "topics_labels": Text("Labels of your own, separated by commas (optional)", "自定标签，用逗号分隔（可不填）"),
    "text": Text("Text", "文本"),
    "classify_run": Text("Classify", "判断"),
    "calibrated": Text("Probabilities are calibrated on held-out data.", "概率已在留出数据上校准。"),
    "uncalibrated": Text("Probabilities are the model's own, not calibrated.", "概率为模型原始值，未校准。"),
    "summary": Text("Summary", "摘要"),
    "summary_lead": Text("A sentence or a title for a text of any length.", "为任意长度的文本写一句话摘要或标题。"),
    "summary_most": Text("max_characters", "max_characters（最多字数）"),
    "summary_most_info": Text("kept exactly; empty: no limit", "严格遵守；留空不限"),
    "summary_most_wrong": Text("max_characters: give a whole number of at least 1, or nothing.", "max_characters：请给不小于 1 的整数，或留空。"),
    "summary_run": Text("Summarize", "写摘要"),
    "answer": Text("Questions", "问答"),
    "answer_lead": Text("The answer is the likeliest span of the text, and is marked in it.", "答案是原文中最可能的片段，并在原文中标出。"),
    "answer_context": Text("Text to read", "阅读材料"),
    "answer_question": Text("Question", "问题"),
    "answer_run": Text("Answer", "回答"),
    "answer_none": Text("The text does not answer this.", "材料中没有答案。"),
    "answer_empty": Text("Give a text and a question first.", "请先给出材料和问题。"),
    "text_empty": Text("Give a text first.", "请先给出文本。"),
    "probability": Text("probability {value}", "概率 {value}"),
    "positive": Text("positive", "正面"),
    "negative": Text("negative", "负面"),
    # Explain.
    "explain": Text("Explain", "解释"),
    "explain_lead": Text("Why was a blank filled so, or a text labelled so? Every word's share, by several methods, layer by layer.", "为什么这样填、这样判断？用多种方法给出每个词的贡献，并逐层查看。"),
    "explain_what": Text("What to explain", "解释什么"),
    "explain_blanks": Text("filled blanks", "填空"),
    "explain_reply": Text("a reply, as in Chat", "回答（同“对话”）"),
    "explain_given": Text("What stands there", "填入的内容"),
    "explain_given_info": Text("A line for each blank, or the answer; empty: what the model writes. Labels need none.", "每个空白一行，或写回答；留空则为模型所写。分类不需要。"),
    "explain_given_wrong": Text("“What stands there” needs {count} line(s), one for each blank.", "“填入的内容”需要 {count} 行，每个空白一行。"),
    "explain_methods": Text("Methods", "方法"),
    "integrated_gradients": Text("integrated gradients", "积分梯度"),
    "ablation": Text("ablation", "逐词遮蔽"),
    "attention_rollout": Text("attention rollout", "注意力展开"),
    "explain_too_many": Text("There are too many blanks; at most {most} are explained at a time.", "空白太多，一次最多解释 {most} 个。"),
    "explain_run": Text("Explain", "解释"),
    "explain_methods_empty": Text("Choose at least one method.", "请至少选择一种方法。"),
    # Compare.
    "compare": Text("Compare", "比较"),
    "compare_lead": Text("The same text under two settings, side by side.", "同一文本，两组设置，并排比较。"),
    "compare_text": Text("Text (with at most one blank; without one the text goes on)", "文本（最多一个空白；没有空白则续写）"),
    "compare_run": Text("Compare", "比较"),
    "side_a": Text("Settings A", "设置 A"),
    "side_b": Text("Settings B", "设置 B"),
    # Choose.
    "choose": Text("Choose", "选型"),
    "choose_lead": Text("Which GLM for a task, the data and a machine, how to train it, and when another family of models is better.", "按任务、数据与机器推荐 GLM、训练方法，并说明何时该用别的模型。"),
    "choose_task": Text("Task", "任务"),
    "choose_examples": Text("Labelled examples", "标注样本数"),
    "choose_gpu": Text("Machine", "设备"),
    "choose_gpu_info": Text("1x24GB, 2x RTX 3090, A100 80GB, cpu:16GB; empty: this server", "1x24GB、2x RTX 3090、A100 80GB、cpu:16GB；留空为本服务器"),
    "choose_latency": Text("One answer within", "单次回答时限"),
    "choose_latency_info": Text("200ms, 1.5s; empty: no limit", "200ms、1.5s；留空不限"),
    "choose_language": Text("Language of the texts", "文本语言"),
    "choose_run": Text("Recommend", "推荐"),
    "choose_examples_wrong": Text("Labelled examples: give a whole number, 0 or more.", "标注样本数：请给不小于 0 的整数。"),
    "choose_none": Text("None of the GLMs suits.", "没有合适的 GLM。"),
    "choose_best": Text("First choice: {name}, {method}", "首选：{name}，{method}"),
    "choose_better": Text("Another family is the better answer", "更合适的是另一类模型"),
    "choose_worth": Text("Worth a comparison", "值得比较"),
    "choose_note": Text("Memory by formula, checked against measurement; times are estimates, within a factor of two at best.", "内存由公式算出，与实测核对过；时间只是估计，最好也只准到两倍以内。"),
    # Images, sounds and clips.
    "media_image": Text("image", "图片"),
    "media_audio": Text("sound", "声音"),
    "media_video": Text("clip", "视频"),
    "media_between": Text(", ", "、"),
    "media_add": Text("Add {kinds}", "添加{kinds}"),
    "media_remove": Text("Remove", "移除"),
    "media_kind": Text("This model does not read “{name}”.", "此模型读不了“{name}”这类文件。"),
    "media_many": Text("At most {most} files at a time.", "一次最多 {most} 个文件。"),
    "media_large": Text("The files have more than {most} MiB together. Please make them smaller or shorter.", "文件合计超过 {most} MiB，请缩小或截短。"),
    "explain_media": Text("Sentiment and topics are of texts alone; images, sounds and clips go with filled blanks, a reply, or a task that the model learned with them.", "情感与主题只针对文本；图片、声音与视频可与“填空”“回答”或模型学过的带媒体的任务一起解释。"),
    "heat_title": Text("{name}, {method}: {sum}", "{name}，{method}：{sum}"),
    "heat_image": Text("image {number}", "图片 {number}"),
    "heat_audio": Text("sound {number}", "声音 {number}"),
    "heat_video": Text("clip {number}", "视频 {number}"),
    "heat_note": Text("Blue speaks for what stands there or for the label, orange against it; each cell is one row that the model reads. The number is the sum of all.", "蓝色支持所填内容或类别，橙色反对；每格是模型读入的一行向量，数字为合计。"),
    "heat_share": Text("Attention rollout: the deeper the blue, the more attention.", "注意力展开：蓝色越深，注意力越多。"),
    # Settings: what the API's fields mean.
    "default": Text("default", "默认"),
    "max_tokens": Text("1–{most}, of each blank", "1–{most}，每个空白"),
    "temperature": Text("{low}–{high}; 0: no drawing", "{low}–{high}；0 为不采样"),
    "top_p": Text("above 0, up to 1", "大于 0，至多 1"),
    "top_k": Text("0 or empty: all tokens", "0 或留空：不限"),
    "seed": Text("repeats a drawing", "使采样可复现"),
    "repetition_penalty": Text("above 0, up to 10; 1: none", "大于 0，至多 10；1 为不惩罚"),
    "no_repeat_ngram_size": Text("{low}–{high}, in tokens; 0: off", "{low}–{high} 个词元；0 为关闭"),
    "choices": Text("one of these", "只能是其中之一"),
    "include": Text("holds all of these", "必须全部包含"),
    "exclude": Text("holds none of these", "不得包含"),
    "regex": Text("all of it matches", "整体匹配该正则"),
    "min_characters": Text("fewest, kept exactly", "最少字数，严格遵守"),
    "max_characters": Text("most, kept exactly", "最多字数，严格遵守"),
    # Mistakes.
    "mistake": Text("That did not work", "没能完成"),
    "details": Text("Details (English)", "详情（英文）"),
    "too_low": Text("{field}: {value} is too low; at least {limit} is allowed.", "{field}：{value} 太小，至少为 {limit}。"),
    "too_high": Text("{field}: {value} is too high; at most {limit} is allowed.", "{field}：{value} 太大，最多为 {limit}。"),
    "above": Text("{field}: {value} must be above {limit}.", "{field}：{value} 必须大于 {limit}。"),
    "whole": Text("{field}: {value} must be a whole number.", "{field}：{value} 必须是整数。"),
    "number": Text("{field}: {value} is no number.", "{field}：{value} 不是数字。"),
    "field_wrong": Text("{field}: {reason}", "{field}：{reason}"),
    "queue_full": Text("The server has as much to do as it takes on. Please try again in about {seconds} s.", "服务器已满负荷，请约 {seconds} 秒后再试。"),
    "deadline_exceeded": Text("It took longer than this server allows. Ask for fewer tokens or a shorter text.", "超过了服务器允许的时间。请减少词元数或缩短文本。"),
    "often": Text("Too many requests in a minute. Please try again in {seconds} s.", "请求过于频繁，请 {seconds} 秒后再试。"),
    "large": Text("That is more than this server takes at a time. Please shorten it.", "超过了服务器一次能接收的大小，请缩短。"),
    "away": Text("The server does not answer. Please try again, or load the page anew.", "服务器没有响应。请重试，或重新加载页面。"),
    "closing": Text("The server is about to stop.", "服务器即将停止。"),
    "internal_error": Text("The server made a mistake. Its log has it as request {id}.", "服务器内部出错，日志中的请求编号为 {id}。"),
    "unknown": Text("Please check what was given.", "请检查输入内容。"),
}  # fmt: skip


class Speaker:
    """Says it in one language.

    Attributes:
        chinese: Whether in Chinese; else in English.
    """

    def __init__(self, chinese: bool):
        self.chinese = chinese

    @property
    def tag(self) -> str:
        """The language's tag for browsers."""
        return "zh-CN" if self.chinese else "en"

    @property
    def code(self) -> str:
        """The language's two letters."""
        return "zh" if self.chinese else "en"

    def __call__(self, key: str, **values: object) -> str:
        """Returns a text of `WORDS` with values put in."""
        return WORDS[key].say(self.chinese).format(**values)


def prefers_chinese(accept_language: str) -> bool:
    """Returns whether a browser's `Accept-Language` puts Chinese before English.

    Weights are as in RFC 9110, 12.5.4; who asks for neither gets English.
    """
    best = {"zh": 0.0, "en": 0.0}
    for part in accept_language.lower().split(","):
        tag, _, weight = part.strip().partition(";q=")
        try:
            value = float(weight or 1)
        except ValueError:
            continue
        language = tag.split("-")[0]
        if language in best:
            best[language] = max(best[language], value)
    if best["zh"] == best["en"] > 0:  # of equals the first
        return accept_language.lower().index("zh") < accept_language.lower().index("en")
    return best["zh"] > best["en"]
